package router

import (
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// slots is the number of schemas.Transports; a test compares them.
const slots = 2

// slot is a transport's place in arrays by transport; ok is false for one that Campanile does not deliver to.
func slot(t schemas.Transport) (i int, ok bool) {
	switch t {
	case schemas.APNS:
		return 0, true
	case schemas.FCM:
		return 1, true
	case pushv1.Transport_TRANSPORT_UNSPECIFIED, pushv1.Transport_TRANSPORT_WNS, pushv1.Transport_TRANSPORT_WEBPUSH:
	}
	return 0, false
}

// counts are the outcomes of one broadcast on one transport, cumulative.
type counts struct {
	first                                           int64
	accepted, invalid, rejected, expired, cancelled int64
	repeats                                         int64
}

func (c *counts) finished() int64 {
	return c.accepted + c.invalid + c.rejected + c.expired + c.cancelled
}

// add adds sign times other.
func (c *counts) add(other *counts, sign int64) {
	c.first += sign * other.first
	c.accepted += sign * other.accepted
	c.invalid += sign * other.invalid
	c.rejected += sign * other.rejected
	c.expired += sign * other.expired
	c.cancelled += sign * other.cancelled
	c.repeats += sign * other.repeats
}

// finish counts one finished send.
func (c *counts) finish(o schemas.Outcome) {
	switch o {
	case pushv1.Outcome_OUTCOME_ACCEPTED:
		c.accepted++
	case pushv1.Outcome_OUTCOME_TOKEN_INVALID:
		c.invalid++
	case pushv1.Outcome_OUTCOME_EXPIRED:
		c.expired++
	case pushv1.Outcome_OUTCOME_CANCELLED:
		c.cancelled++
	case pushv1.Outcome_OUTCOME_REJECTED, pushv1.Outcome_OUTCOME_UNSPECIFIED, pushv1.Outcome_OUTCOME_THROTTLED,
		pushv1.Outcome_OUTCOME_UNAVAILABLE, pushv1.Outcome_OUTCOME_MISCONFIGURED:
		c.rejected++
	default: // of a newer sender: it is finished all the same, or its broadcast would never end
		c.rejected++
	}
}

// event is the counts as events carry them.
func (c *counts) event(t schemas.Transport, emitted int64) *pushv1.TransportCounts {
	return &pushv1.TransportCounts{
		Transport: t, Emitted: emitted, FirstOutcomes: c.first, Accepted: c.accepted, TokenInvalid: c.invalid,
		Rejected: c.rejected, Expired: c.expired, Cancelled: c.cancelled, Repeats: c.repeats,
	}
}

func countsFrom(e *pushv1.TransportCounts) counts {
	return counts{
		first: e.GetFirstOutcomes(), accepted: e.GetAccepted(), invalid: e.GetTokenInvalid(), rejected: e.GetRejected(),
		expired: e.GetExpired(), cancelled: e.GetCancelled(), repeats: e.GetRepeats(),
	}
}

// byTransport reads a list of counts.
func byTransport(list []*pushv1.TransportCounts) (all [slots]counts) {
	for _, e := range list {
		if i, ok := slot(e.GetTransport()); ok {
			all[i] = countsFrom(e)
		}
	}
	return all
}
