package router

import (
	"slices"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Reasons of what the direct router refuses, as deliveries carry them.
const (
	reasonDead        = "Unregistered token" // AirNotifier's text, which Moodle knows
	reasonUnknown     = "unknown token"
	reasonExpired     = "expired before it was routed"
	reasonUnsupported = "unsupported transport"
	reasonNoContent   = "no content"
	reasonConflict    = "another request came first under this Idempotency-Key"
	reasonCopy        = "the same request came a moment before"
)

// proof is what the store said of a device in doubt. Its zero value is no answer in time.
type proof struct {
	// given: the store has applied the device's partition up to the request's doubt end.
	given bool
	state schemas.DeviceState
}

// verdict says what becomes of a request. The zero Outcome is a send.
type verdict struct {
	outcome schemas.Outcome
	reason  string
	// registeredAtUS is what the send carries: a provider's answer that has no time of its own calls dead only what was
	// registered until then.
	registeredAtUS int64
}

// decide says what becomes of a notification. A refusal of a device needs proof: Moodle deletes what is called dead, so
// where the store has not said so, the push is sent and the provider decides.
func decide(e *pushv1.NotificationRequested, p proof, nowUS int64) verdict {
	switch {
	case !slices.Contains(schemas.Transports, e.Transport):
		return verdict{outcome: pushv1.Outcome_OUTCOME_REJECTED, reason: reasonUnsupported}
	case e.Content == nil:
		return verdict{outcome: pushv1.Outcome_OUTCOME_REJECTED, reason: reasonNoContent}
	case e.ExpiresAtUs > 0 && e.ExpiresAtUs <= nowUS:
		return verdict{outcome: pushv1.Outcome_OUTCOME_EXPIRED, reason: reasonExpired}
	}
	send := verdict{registeredAtUS: e.RegisteredAtUs}
	if send.registeredAtUS == 0 {
		send.registeredAtUS = e.RequestedAtUs
	}
	if !e.InDoubt || !p.given {
		return send
	}
	switch {
	case p.state.Known && !p.state.Alive:
		return verdict{outcome: pushv1.Outcome_OUTCOME_TOKEN_INVALID, reason: reasonDead}
	case !p.state.Known && !e.MayCreate:
		return verdict{outcome: pushv1.Outcome_OUTCOME_REJECTED, reason: reasonUnknown}
	case p.state.Known && p.state.RegisteredAtUS > 0:
		send.registeredAtUS = p.state.RegisteredAtUS
	}
	return send
}
