package ingest

import (
	"strings"

	"github.com/campanile-push/campanile/schemas"
)

// apnsTokenLength is the length of an APNs token as text: 32 bytes in hex.
const apnsTokenLength = 64

// target is where a token's pushes go. Platform is as sent; where nothing usable was sent, what stands for it.
type target struct {
	transport schemas.Transport
	platform  string
}

// leniency is what an endpoint does with a platform that it does not know or that does not fit its token.
type leniency int

const (
	registerV1   leniency = iota // POST /tokens/<t>
	registerV2                   // POST /api/v2/tokens
	pushAnything                 // /api/v2/push, /notification/
)

// targetOf chooses the transport of a token by the platform that the request names (the contract's section 2). The stored platform is
// not consulted, as in AirNotifier.
//
// Moodle's older sites send no platform at all, or "iOS" for the FCM tokens of newer apps; the length tells them apart: a token
// longer than APNs' is FCM's. A token without a platform is an APNs token if it looks like one and, on v1, is refused if
// it is shorter, which is how Moodle's settings page tests a key (/tokens/testtoken).
func targetOf(device, token string, rule leniency) (target, *answer) {
	if schemas.CheckToken(token) != nil {
		return target{}, invalidToken
	}
	switch {
	case strings.EqualFold(device, "ios") || device == "" && rule == registerV1:
		return appleTarget(device, token, rule)
	case device == "":
		if isAPNsToken(token) {
			return target{schemas.APNS, "ios"}, nil
		}
		return target{schemas.FCM, "fcm"}, nil
	case isFCM(device):
		return target{schemas.FCM, device}, nil
	case rule == registerV1: // forced, as AirNotifier does with whatever it does not know
		return target{schemas.FCM, device}, nil
	}
	return target{}, invalidDeviceType
}

// isFCM is AirNotifier's rule: whatever ends in fcm, and android.
func isFCM(device string) bool {
	return len(device) >= 3 && strings.EqualFold(device[len(device)-3:], "fcm") || strings.EqualFold(device, "android")
}

func appleTarget(device, token string, rule leniency) (target, *answer) {
	if isAPNsToken(token) {
		if device == "" {
			device = "ios"
		}
		return target{schemas.APNS, device}, nil
	}
	if len(token) > apnsTokenLength && rule != registerV2 {
		return target{schemas.FCM, "fcm"}, nil
	}
	return target{}, invalidToken
}

// badTokenArgument is the check that AirNotifier makes of every request's argument `token` before it knows the app.
func badTokenArgument(token, device string) bool {
	if device != "" && !strings.EqualFold(device, "ios") {
		return false
	}
	return len(token) < apnsTokenLength || len(token) == apnsTokenLength && !isAPNsToken(token)
}

func isAPNsToken(token string) bool {
	if len(token) != apnsTokenLength {
		return false
	}
	for i := range len(token) {
		c := token[i] | 0x20
		if !isDigit(token[i]) && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// environmentOf reads our own field `environment`; only APNs has more than one.
func environmentOf(word string, t schemas.Transport) (schemas.Environment, *answer) {
	switch word {
	case "", "production":
		return schemas.Production, nil
	case "sandbox":
		if t == schemas.APNS {
			return schemas.Sandbox, nil
		}
		return schemas.Production, nil
	}
	return schemas.Production, invalidEnvironment
}

// platformFilter is a broadcast's `device` as the platforms that it means, lower case. Phones register as Android-fcm and
// iOS-fcm, and whoever says android, ios or fcm means them too.
func platformFilter(device string) []string {
	switch device = strings.ToLower(device); device {
	case "":
		return nil
	case "android":
		return []string{"android", "android-fcm"}
	case "ios":
		return []string{"ios", "ios-fcm"}
	case "fcm":
		return []string{"android", "android-fcm", "fcm", "ios-fcm"}
	}
	return []string{device}
}
