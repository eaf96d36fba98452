package router

import (
	"slices"
	"strings"
	"unsafe"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// platformFilter is a request's platforms. Nil lets everything pass.
type platformFilter []string

func newPlatformFilter(platforms []string) platformFilter { return slices.Clone(platforms) }

// match compares with a platform as registered, in lower case: AirNotifier's clients say "ios-fcm" where they mean iOS by
// way of FCM, so that "ios" matches it, and "fcm" matches all that goes through FCM. What goes through APNs is iOS.
func (f platformFilter) match(t schemas.Transport, platform string) bool {
	for _, want := range f {
		switch {
		case want == platform, want == t.Word(), t == schemas.APNS && want == "ios":
			return true
		case len(platform) > len(want) && platform[len(want)] == '-' && strings.HasPrefix(platform, want):
			return true
		}
	}
	return false
}

// apply keeps of a page's devices those that match, in place.
func (f platformFilter) apply(t schemas.Transport, devices []schemas.AudienceDevice) []schemas.AudienceDevice {
	if len(f) == 0 {
		return devices
	}
	kept := devices[:0]
	last, lastMatches := "", f.match(t, "")
	for i := range devices {
		if p := devices[i].Platform; p != last { // an audience has few platforms, in runs
			last, lastMatches = p, f.match(t, p)
		}
		if lastMatches {
			kept = append(kept, devices[i])
		}
	}
	return kept
}

// expansion writes pages of sends. Its memory is that of one page; another is read ahead meanwhile.
type expansion struct {
	page *schemas.Page
	send pushv1.SendRequested
}

// emit appends one send for each device: broadcast, token, environment and registration, and nothing that the broadcast
// says for all of them.
func (x *expansion) emit(out *schemas.Out, lane schemas.Lane, r *request, t schemas.Transport, devices []schemas.AudienceDevice) {
	x.send.Reset()
	x.send.BroadcastId = r.BroadcastId
	d := schemas.Device{App: r.App, Transport: t}
	for i := range devices {
		// The token stays where the page has it: out encodes at once and keeps no string.
		token := unsafe.String(unsafe.SliceData(devices[i].Token), len(devices[i].Token)) //nolint:gosec // see above
		d.Token, d.Environment = token, devices[i].Environment
		x.send.Token, x.send.Environment, x.send.RegisteredAtUs = token, d.Environment, devices[i].RegisteredAtUS
		out.SendRequested(lane, d, &x.send)
	}
	x.send.Reset()
}
