package senders

import pushv1 "github.com/campanile-push/campanile/schemas/push/v1"

// Limit says what held a send back.
type Limit = pushv1.Limit

// Limits, by their short names.
const (
	limitNone        = pushv1.Limit_LIMIT_UNSPECIFIED
	limitWindow      = pushv1.Limit_LIMIT_WINDOW
	limitLatency     = pushv1.Limit_LIMIT_LATENCY
	limitRamp        = pushv1.Limit_LIMIT_RAMP
	limitQuota       = pushv1.Limit_LIMIT_QUOTA
	limitThrottled   = pushv1.Limit_LIMIT_THROTTLED
	limitDevice      = pushv1.Limit_LIMIT_DEVICE
	limitUnavailable = pushv1.Limit_LIMIT_UNAVAILABLE
	limitParked      = pushv1.Limit_LIMIT_PARKED
)

// limitOf is what an answer says of the rate.
func limitOf(v Verdict) Limit {
	switch v.Outcome { //nolint:exhaustive // the others say nothing of it
	case throttled:
		if v.Has(SlowDown) {
			return limitThrottled
		}
		return limitDevice
	case unavailable:
		return limitUnavailable
	case misconfigured:
		return limitParked
	}
	return limitNone
}
