package contracttest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Say writes down what stands before the first request: apps, keys and dead tokens.
func (c *Contract) Say(out *schemas.Out) {
	for name, app := range c.Apps {
		e := &pushv1.AppConfigured{
			App: name, AllowedSites: app.AllowedSites, SiteKeysCannotRegister: app.MayNot,
			BlockedNetworks: strings.Split(app.BlockedIPList, "\n"),
		}
		switch app.Policy {
		case "allow-list":
			e.AccessKeyPolicy = pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_ALLOW_LIST
		case "remote-check":
			e.AccessKeyPolicy = pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_REMOTE_CHECK
		case "manual":
			e.AccessKeyPolicy = pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_MANUAL
		}
		out.AppConfigured(e)
	}
	for _, key := range c.Keys {
		hash := sha256.Sum256([]byte(key.Value))
		app := key.App
		if app == "" {
			app = c.App
		}
		out.AccessKeyIssued(&pushv1.AccessKeyIssued{
			App: app, KeyId: KeyID(key.Value), ValueHash: hash[:], Permissions: key.Permissions, IssuedAtUs: 1,
		})
	}
	for _, token := range c.Dead {
		out.TokenRegistered(&pushv1.TokenRegistered{App: c.App, Transport: schemas.FCM, Token: token, Platform: "Android-fcm", RegisteredAtUs: 1})
		out.TokenInvalidated(&pushv1.TokenInvalidated{App: c.App, Transport: schemas.FCM, Token: token, AsOfUs: 2, Reason: "UNREGISTERED"})
	}
}

// KeyID is the id under which the log knows a key's value.
func KeyID(value string) string {
	hash := sha256.Sum256([]byte(value))
	return hex.EncodeToString(hash[:16])
}

// SiteCheck is the service behind the remote check: it knows one siteid.
func (c *Contract) SiteCheck() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known := 0
		if r.URL.Query().Get("siteid") == c.KnownSite {
			known = 7
		}
		_, _ = fmt.Fprint(w, known)
	})
}

// CheckPush compares what stands in the log of an accepted push with what the case wants: a member that is null must not be there, and one
// that the case does not name may be.
func (c *Case) CheckPush(n *pushv1.NotificationRequested) error {
	if n == nil {
		return errors.New("the push is not in the log")
	}
	got := push(n)
	var wrong []string
	for name, want := range c.Pushes {
		if !reflect.DeepEqual(want, got[name]) {
			wrong = append(wrong, fmt.Sprintf("want %s %v in the log, got %v", name, want, got[name]))
		}
	}
	if wrong == nil {
		return nil
	}
	slices.Sort(wrong)
	return errors.New(strings.Join(wrong, "; "))
}

// CheckBroadcast compares whom an accepted broadcast goes to with what the case wants. claim is the channel of a kept key's claim.
func (c *Case) CheckBroadcast(b *pushv1.BroadcastRequested, claim func(name string) string) error {
	if b == nil {
		return errors.New("the broadcast is not in the log")
	}
	if want := Channels(c.Sends.Channels, claim); !slices.Equal(want, slices.Sorted(slices.Values(b.Channels))) || !slices.Equal(c.Sends.Platforms, b.Platforms) {
		return fmt.Errorf("want a broadcast to %v of %v, got %v of %v", c.Sends.Platforms, want, b.Platforms, b.Channels)
	}
	return nil
}

// Channels are the names in a case, sorted, with those of claims put in.
func Channels(names []string, claim func(name string) string) []string {
	out := []string{}
	for _, name := range names {
		if kept, ok := strings.CutPrefix(name, "="); ok {
			name = claim(kept)
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// push is an accepted push as the cases write it: members that say nothing are left out.
func push(n *pushv1.NotificationRequested) map[string]any {
	content := n.Content
	m := map[string]any{"transport": n.Transport.Word(), "platform": n.Platform, "token": n.Token}
	switch content.Alert {
	case pushv1.Content_ALERT_NONE:
		m["alert"] = nil
	case pushv1.Content_ALERT_TEXT:
		m["alert"] = content.Text
	case pushv1.Content_ALERT_TITLE_BODY:
		m["alert"] = map[string]any{"title": content.Title, "body": content.Body}
	}
	data := map[string]any{}
	for _, kv := range content.Data {
		data[kv.Key] = kv.Value
	}
	if len(data) > 0 {
		m["data"] = data
	}
	for name, text := range map[string]string{
		"fcm": string(content.FcmJson), "apns": string(content.ApnsJson), "sound": content.Sound, "collapse_key": content.CollapseId,
		"category": content.Category, "thread-id": content.ThreadId, "push_type": content.PushType,
	} {
		if text != "" {
			m[name] = text
		}
	}
	if content.Badge != nil {
		m["badge"] = float64(*content.Badge)
	}
	for name, set := range map[string]bool{
		"content-available": content.ContentAvailable, "mutable-content": content.MutableContent, "encrypted": content.Encrypted,
	} {
		if set {
			m[name] = true
		}
	}
	return m
}
