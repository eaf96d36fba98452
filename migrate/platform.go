package migrate

import (
	"strings"
	"unicode/utf8"

	"github.com/campanile-push/campanile/schemas"
)

// apnsTokenLength is the length of an APNs token as text: 32 bytes in hex.
const apnsTokenLength = 64

// Reasons for which a token is refused, in the words of the report.
const (
	noToken        = "no token"
	tokenNoText    = "token is no text"
	tokenUnusable  = "token with control characters, broken text, or over 1024 bytes"
	iosTooShort    = "ios, shorter than 64 characters"
	iosNoHex       = "ios, 64 characters that are not hex"
	gcmID          = "android, a registration id of GCM, which ended in 2019"
	noTransport    = "platform that Campanile does not deliver to: "
	unknownDevice  = "unknown platform"
	platformNoText = "platform is no text"
)

// target is what a token becomes.
type target struct {
	transport schemas.Transport
	platform  string
	// rank orders what several records say of one token: the more they say, the higher.
	rank uint8
}

// Ranks of platforms. An APNs token cannot be FCM's, "fcm" says nothing of the phone, and what AirNotifier forced to "android" may
// be an iPhone.
const (
	rankUnknown  = 1 // fcm
	rankForced   = 2 // android
	rankPlatform = 3 // android-fcm, ios-fcm
	rankAPNs     = 4
)

// targetOf decides what a stored token is. A record without a platform is an iOS record, as AirNotifier's own upgrade of 2014
// has it, and an iOS token that is longer than APNs' is FCM's: the newer Moodle app at an older site.
func targetOf(device, token value) (target, string) {
	if token.missing() {
		return target{}, noToken
	}
	if token.kind != text {
		return target{}, tokenNoText
	}
	if schemas.CheckToken(token.text) != nil || strings.ContainsRune(token.text, utf8.RuneError) {
		return target{}, tokenUnusable
	}
	platform := device.string()
	if !device.missing() && device.kind != text {
		return target{}, platformNoText
	}
	switch lower := strings.ToLower(platform); {
	case lower == "" || lower == "ios":
		return appleTarget(platform, token.text)
	case lower == "fcm":
		return target{schemas.FCM, platform, rankUnknown}, ""
	case lower == "android":
		if !strings.Contains(token.text, ":") { // every token of FCM is <instance>:<rest>
			return target{}, gcmID
		}
		return target{schemas.FCM, platform, rankForced}, ""
	case strings.HasSuffix(lower, "fcm"):
		if schemas.CheckChannel(platform) != nil { // the same alphabet and length will do
			return target{}, unknownDevice
		}
		return target{schemas.FCM, platform, rankPlatform}, ""
	case lower == "wns" || lower == "mpns" || lower == "sms":
		return target{}, noTransport + lower
	}
	return target{}, unknownDevice
}

func appleTarget(platform, token string) (target, string) {
	switch {
	case len(token) < apnsTokenLength:
		return target{}, iosTooShort
	case len(token) > apnsTokenLength:
		return target{schemas.FCM, "fcm", rankUnknown}, ""
	case !isHex(token):
		return target{}, iosNoHex
	}
	if platform == "" {
		platform = "ios"
	}
	return target{schemas.APNS, platform, rankAPNs}, ""
}

func isHex(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if (s[i] < '0' || s[i] > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// defaultChannel is AirNotifier's, for tokens that name none.
const defaultChannel = "default"

// channelOf is the channel of a stored token; usable is false where it named one that cannot be, and gets the default instead.
func channelOf(v value) (channel string, usable bool) {
	if v.missing() {
		return defaultChannel, true
	}
	if v.kind != text || schemas.CheckChannel(v.string()) != nil || strings.ContainsRune(v.text, utf8.RuneError) {
		return defaultChannel, false
	}
	return v.string(), true
}
