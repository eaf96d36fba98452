package pushv1

// Word is the transport's name in topics, URLs, flags and tables; "" for no transport.
func (t Transport) Word() string {
	switch t {
	case Transport_TRANSPORT_APNS:
		return "apns"
	case Transport_TRANSPORT_FCM:
		return "fcm"
	case Transport_TRANSPORT_WNS:
		return "wns"
	case Transport_TRANSPORT_WEBPUSH:
		return "webpush"
	case Transport_TRANSPORT_UNSPECIFIED:
	}
	return ""
}

// Word is the lane's name in topics and tables; "" for no lane.
func (l Lane) Word() string {
	switch l {
	case Lane_LANE_DIRECT:
		return "direct"
	case Lane_LANE_BULK:
		return "bulk"
	case Lane_LANE_ROUTER:
		return "router"
	case Lane_LANE_EXPRESS:
		return "express"
	case Lane_LANE_UNSPECIFIED:
	}
	return ""
}

// Word is the outcome's name in tables, statistics and on the console; "" for none.
func (o Outcome) Word() string {
	switch o {
	case Outcome_OUTCOME_ACCEPTED:
		return "accepted"
	case Outcome_OUTCOME_TOKEN_INVALID:
		return "token_invalid"
	case Outcome_OUTCOME_REJECTED:
		return "rejected"
	case Outcome_OUTCOME_THROTTLED:
		return "throttled"
	case Outcome_OUTCOME_UNAVAILABLE:
		return "unavailable"
	case Outcome_OUTCOME_MISCONFIGURED:
		return "misconfigured"
	case Outcome_OUTCOME_EXPIRED:
		return "expired"
	case Outcome_OUTCOME_CANCELLED:
		return "cancelled"
	case Outcome_OUTCOME_UNSPECIFIED:
	}
	return ""
}

// Word is the limit's name in the API, metrics and on the console; "" for none.
func (l Limit) Word() string {
	switch l {
	case Limit_LIMIT_DEVICE:
		return "device_rate"
	case Limit_LIMIT_WINDOW:
		return "window"
	case Limit_LIMIT_LATENCY:
		return "latency"
	case Limit_LIMIT_RAMP:
		return "ramp"
	case Limit_LIMIT_QUOTA:
		return "quota"
	case Limit_LIMIT_THROTTLED:
		return "throttled"
	case Limit_LIMIT_UNAVAILABLE:
		return "provider_unavailable"
	case Limit_LIMIT_PARKED:
		return "parked"
	case Limit_LIMIT_UNSPECIFIED:
	}
	return ""
}

// Final reports whether a send with this outcome is finished. Throttled, unavailable and misconfigured sends are
// tried again until they expire.
func (o Outcome) Final() bool {
	switch o {
	case Outcome_OUTCOME_ACCEPTED, Outcome_OUTCOME_TOKEN_INVALID, Outcome_OUTCOME_REJECTED,
		Outcome_OUTCOME_EXPIRED, Outcome_OUTCOME_CANCELLED:
		return true
	case Outcome_OUTCOME_UNSPECIFIED, Outcome_OUTCOME_THROTTLED, Outcome_OUTCOME_UNAVAILABLE, Outcome_OUTCOME_MISCONFIGURED:
	}
	return false
}

// Finished is the number of sends that ended on this transport.
func (c *TransportCounts) Finished() int64 {
	return c.GetAccepted() + c.GetTokenInvalid() + c.GetRejected() + c.GetExpired() + c.GetCancelled()
}

// Add adds other's counts, whatever its transport.
func (c *TransportCounts) Add(other *TransportCounts) {
	c.Emitted += other.GetEmitted()
	c.FirstOutcomes += other.GetFirstOutcomes()
	c.Accepted += other.GetAccepted()
	c.TokenInvalid += other.GetTokenInvalid()
	c.Rejected += other.GetRejected()
	c.Expired += other.GetExpired()
	c.Cancelled += other.GetCancelled()
	c.Repeats += other.GetRepeats()
}
