package senders_test

import (
	"testing"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

const (
	accepted      = pushv1.Outcome_OUTCOME_ACCEPTED
	tokenInvalid  = pushv1.Outcome_OUTCOME_TOKEN_INVALID
	rejected      = pushv1.Outcome_OUTCOME_REJECTED
	throttled     = pushv1.Outcome_OUTCOME_THROTTLED
	unavailable   = pushv1.Outcome_OUTCOME_UNAVAILABLE
	misconfigured = pushv1.Outcome_OUTCOME_MISCONFIGURED
)

func TestEveryReasonOfAPNsHasItsVerdict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status  int
		reason  string
		outcome pushv1.Outcome
		actions senders.Action
	}{
		{200, "", accepted, 0},
		{400, "BadDeviceToken", tokenInvalid, senders.Invalidate | senders.Suspect},
		{400, "DeviceTokenNotForTopic", tokenInvalid, senders.Invalidate | senders.Suspect},
		{400, "BadCollapseId", rejected, 0},
		{400, "BadExpirationDate", rejected, 0},
		{400, "BadMessageId", rejected, 0},
		{400, "BadPriority", rejected, 0},
		{400, "BadTopic", misconfigured, senders.Park},
		{400, "DuplicateHeaders", rejected, 0},
		{400, "IdleTimeout", unavailable, senders.Reconnect},
		{400, "InvalidPushType", rejected, 0},
		{400, "MissingDeviceToken", rejected, 0},
		{400, "MissingTopic", misconfigured, senders.Park},
		{400, "PayloadEmpty", rejected, 0},
		{400, "TopicDisallowed", misconfigured, senders.Park},
		{403, "BadCertificate", misconfigured, senders.Park | senders.Reconnect},
		{403, "BadCertificateEnvironment", misconfigured, senders.Park | senders.Reconnect},
		{403, "ExpiredProviderToken", unavailable, senders.RefreshToken},
		{403, "Forbidden", misconfigured, senders.Park},
		{403, "InvalidProviderToken", misconfigured, senders.Park | senders.Reconnect},
		{403, "MissingProviderToken", misconfigured, senders.Park | senders.Reconnect},
		{403, "UnrelatedKeyIdInToken", unavailable, senders.Reconnect},
		{403, "BadEnvironmentKeyIdInToken", misconfigured, senders.Park},
		{403, "BadEnvironmentKeyInToken", misconfigured, senders.Park},
		{404, "BadPath", rejected, 0},
		{405, "MethodNotAllowed", rejected, 0},
		{410, "Unregistered", tokenInvalid, senders.Invalidate},
		{410, "ExpiredToken", tokenInvalid, senders.Invalidate},
		{413, "PayloadTooLarge", rejected, 0},
		{429, "TooManyRequests", throttled, 0},
		{429, "TooManyProviderTokenUpdates", throttled, senders.HoldToken},
		{500, "InternalServerError", unavailable, 0},
		{503, "ServiceUnavailable", unavailable, 0},
		{503, "Shutdown", unavailable, senders.Reconnect},
		// words that nobody has told us of
		{400, "SomethingNew", rejected, 0},
		{403, "SomethingNew", misconfigured, senders.Park},
		{410, "SomethingNew", rejected, 0}, // never a dead token on an unknown word
		{429, "SomethingNew", throttled, 0},
		{500, "SomethingNew", unavailable, 0},
		{302, "", unavailable, 0},
	} {
		if got := senders.APNSVerdict(c.status, c.reason); got.Outcome != c.outcome || got.Actions != c.actions {
			t.Errorf("%d %s: want %s %b, got %s %b", c.status, c.reason, c.outcome.Word(), c.actions, got.Outcome.Word(), got.Actions)
		}
	}
}

func TestEveryCodeOfFCMHasItsVerdict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status  int
		code    string
		blames  bool
		outcome pushv1.Outcome
		actions senders.Action
	}{
		{200, "", false, accepted, 0},
		{404, "UNREGISTERED", false, tokenInvalid, senders.Invalidate},
		{400, "INVALID_ARGUMENT", true, tokenInvalid, senders.Invalidate | senders.Suspect},
		{400, "INVALID_ARGUMENT", false, rejected, 0},
		{400, "", true, tokenInvalid, senders.Invalidate | senders.Suspect},
		{400, "", false, rejected, 0},
		{403, "SENDER_ID_MISMATCH", false, tokenInvalid, senders.Invalidate | senders.Suspect},
		{403, "", false, misconfigured, senders.Park},
		{429, "QUOTA_EXCEEDED", false, throttled, senders.SlowDown},
		{429, "", false, throttled, senders.SlowDown},
		{503, "UNAVAILABLE", false, unavailable, 0},
		{500, "INTERNAL", false, unavailable, 0},
		{502, "", false, unavailable, 0},
		{504, "", false, unavailable, 0},
		{401, "THIRD_PARTY_AUTH_ERROR", false, misconfigured, 0},
		{401, "APNS_AUTH_ERROR", false, misconfigured, 0},
		{401, "", false, unavailable, senders.RefreshToken},
		{404, "", false, misconfigured, senders.Park},
		{404, "SOMETHING_NEW", false, misconfigured, senders.Park},
		{418, "SOMETHING_NEW", false, rejected, 0},
	} {
		if got := senders.FCMVerdict(c.status, c.code, c.blames); got.Outcome != c.outcome || got.Actions != c.actions {
			t.Errorf("%d %s %v: want %s %b, got %s %b", c.status, c.code, c.blames, c.outcome.Word(), c.actions, got.Outcome.Word(), got.Actions)
		}
	}
}
