package storetest

import (
	"fmt"
	"math/rand/v2"

	"github.com/campanile-push/campanile/schemas"
)

// Apps, channels and platforms of random histories.
//
//nolint:gochecknoglobals // tables that never change
var (
	historyApps      = []string{"moodle", "moodle-2"} // one is a prefix of the other
	historyChannels  = []string{"site", "site2", "kanal-ä", "課程"}
	historyPlatforms = []string{"iOS-fcm", "Android-fcm", "ios"}
)

// RandomDevices are n devices whose tokens are hard to sort: prefixes of each other, one token on every transport and
// environment, other scripts.
func RandomDevices(r *rand.Rand, n int) []schemas.Device {
	stems := []string{"a", "aa", "a~", "token-", "TOKEN-", "é", "ß:", "令", "😀", "\u00ff", "\uffff"}
	devices := make([]schemas.Device, 0, n)
	for len(devices) < n {
		token := stems[r.IntN(len(stems))]
		if r.IntN(3) > 0 {
			token += fmt.Sprint(r.IntN(n))
		}
		all := []schemas.Device{
			{Transport: schemas.APNS}, {Transport: schemas.APNS, Environment: schemas.Sandbox}, {Transport: schemas.FCM},
		}
		d := all[r.IntN(len(all))]
		d.App, d.Token = historyApps[r.IntN(len(historyApps))], token
		devices = append(devices, d)
	}
	return devices
}

// SayRandom appends n random events about devices, with gaps as transactions leave them.
func SayRandom(r *rand.Rand, l *Log, devices []schemas.Device, n int) {
	for range n {
		d := devices[r.IntN(len(devices))]
		channel := historyChannels[r.IntN(len(historyChannels))]
		at := int64(r.IntN(20)) // times are few, so that they meet
		switch k := r.IntN(20); {
		case k < 6:
			l.Say(Register(d, at, historyPlatforms[r.IntN(len(historyPlatforms))]))
		case k < 8:
			l.Say(Unregister(d))
		case k < 11:
			l.Say(Invalidate(d, at))
		case k < 17:
			l.Say(Subscribe(d, channel))
		case k < 19:
			l.Say(Unsubscribe(d, channel))
		default:
			l.Skip(l.layout.Of(d))
		}
	}
}
