package bench

import (
	"context"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/simulator"
)

// faultRow is what a provider does to pushes, and what may become of them.
type faultRow struct {
	name  string
	rules []simulator.Rule
	conns simulator.ConnScenario
	mix   simulator.Mix
	// cuts: answers are withheld after the push was taken, or lost with their connection, so that repeats are right.
	cuts bool
	// own is how long nothing can end by the fault itself: what a pause lasts, or what it takes to find a silent peer out.
	own time.Duration
	// breaks is how many connections the fault ends.
	breaks int
	// during begins a trouble of new connections; nil: none.
	during func(ctx context.Context, c *simulator.Client, p simulator.Provider) error
	// ends are the reasons that end a send, and how; nil: that of dead tokens alone.
	ends map[string]ending
}

const (
	faultTimes  = 20              // in a run
	faultWait   = 2 * time.Second // for an answer, in place of 15 s
	silentPeer  = 7 * time.Second // until a silent peer is found out: senders/h2's 6.5 s
	troubleTime = time.Second     // of refused connections, broken TLS, brown-outs
	redialPause = 2 * time.Second // a dialler's longest pause while a provider cannot be reached
	parkedPause = 2 * time.Second // until a parked app is probed, and its sends are looked at again
	quietTime   = time.Second     // longer than what is outstanding takes
)

// faultRows are every fault of a connection, each alone at one push of so many, limits and troubles of connections, every reason of the
// provider's table, and all of it at once.
func faultRows(n int, p simulator.Provider) []faultRow {
	var rows []faultRow
	var mixed []simulator.Rule
	for _, f := range simulator.Faults() {
		row := faultRow{name: string(f), breaks: faultTimes}
		r := simulator.Rule{Name: string(f), Provider: p, Fault: f, Every: int64(n / faultTimes), Times: 1, Pause: simulator.Duration(50 * time.Millisecond)}
		switch f {
		case simulator.FaultRSTAfter, simulator.FaultResetAfter, simulator.FaultReset, simulator.FaultGoAway, simulator.FaultUnprocessed:
			row.cuts = true
		case simulator.FaultBlackhole:
			row.cuts, row.own = true, faultWait
		case simulator.FaultFreeze: // each takes the seconds in which a silent peer is found out
			row.cuts, row.own = true, silentPeer
			r.Every = int64(n / 3)
		case simulator.FaultDrip: // of a hundred pieces
			row.cuts, row.own = true, 100*time.Millisecond // a drip may outlast a deadline
			r.Pause = simulator.Duration(time.Millisecond)
		case simulator.FaultRST, simulator.FaultRSTRefused, simulator.FaultRSTCancel:
		case simulator.FaultSlowRead, simulator.FaultStarve:
			row.cuts, row.own = true, r.Pause.D()
		}
		row.rules = []simulator.Rule{r}
		rows = append(rows, row)
		r.Every = 3*r.Every + int64(len(mixed))
		mixed = append(mixed, r)
	}
	conns := simulator.ConnScenario{Streams: 100, FirstStreams: 1, Shrink: true, Window: 1000, ConnWindow: 65_535}
	mix := simulator.Mix{"dead": 0.05, "unavailable": 0.02, "throttled": 0.02}
	reset := []simulator.Rule{{Name: "reset", Provider: p, Fault: simulator.FaultReset, Every: int64(n / 10)}}
	rows = append(rows,
		faultRow{name: "limits", conns: conns},
		faultRow{name: "cap", conns: simulator.ConnScenario{Max: 2, Streams: 300}, rules: reset, cuts: true, own: redialPause, breaks: 10 + 20},
		faultRow{name: "refused", rules: reset, cuts: true, own: troubleTime + redialPause, breaks: 10 + 20, during: func(ctx context.Context, c *simulator.Client, p simulator.Provider) error {
			return c.Refuse(ctx, p, troubleTime)
		}},
		faultRow{name: "tls_failure", rules: reset, cuts: true, own: troubleTime + redialPause, breaks: 10 + 20, during: func(ctx context.Context, c *simulator.Client, p simulator.Provider) error {
			return c.FailTLS(ctx, p, troubleTime)
		}},
		faultRow{
			name: "idle_close", conns: simulator.ConnScenario{IdleClose: simulator.Duration(250 * time.Millisecond)}, own: quietTime, breaks: 5 * faultTimes,
			during: func(ctx context.Context, _ *simulator.Client, _ simulator.Provider) error {
				select {
				case <-time.After(quietTime):
				case <-ctx.Done():
				}
				return nil
			},
		},
		faultRow{name: "brownout", own: troubleTime + 2*time.Second, during: func(ctx context.Context, c *simulator.Client, p simulator.Provider) error {
			return c.Brownout(ctx, p, "unavailable", troubleTime)
		}},
		faultRow{name: "refusals", mix: mix, own: time.Second},
		reasonRow(n, p),
		parkRow(n, p),
		faultRow{name: "mixed", rules: mixed, conns: conns, mix: mix, cuts: true, own: silentPeer, breaks: len(mixed) * faultTimes})
	return rows
}

// reasonRow is every reason that concerns one push or one connection. Those of a token are of half a percent of the tokens each.
func reasonRow(n int, p simulator.Provider) faultRow {
	const (
		invalid  = pushv1.Outcome_OUTCOME_TOKEN_INVALID
		rejected = pushv1.Outcome_OUTCOME_REJECTED
	)
	row := faultRow{name: "reasons", mix: simulator.Mix{}, ends: map[string]ending{}, cuts: true, own: time.Second, breaks: 3 * faultTimes}
	ends := map[schemas.Outcome][]string{
		invalid: {"Unregistered", "ExpiredToken", "BadDeviceToken", "DeviceTokenNotForTopic"},
		rejected: {
			"BadCollapseId", "BadExpirationDate", "BadMessageId", "BadPriority", "DuplicateHeaders", "InvalidPushType", "PayloadEmpty", "MissingDeviceToken",
			"BadPath", "MethodNotAllowed", "PayloadTooLarge",
		},
	}
	heals := []string{"TooManyRequests", "InternalServerError", "ServiceUnavailable"}
	once := []string{"IdleTimeout", "Shutdown", "ExpiredProviderToken", "UnrelatedKeyIdInToken", "TooManyProviderTokenUpdates"}
	if p == simulator.FCM {
		ends = map[schemas.Outcome][]string{invalid: {"UNREGISTERED", "SENDER_ID_MISMATCH", "INVALID_TOKEN"}, rejected: {"INVALID_ARGUMENT"}}
		heals = []string{"QUOTA_EXCEEDED", "UNAVAILABLE", "INTERNAL", "BAD_GATEWAY", "GATEWAY_TIMEOUT"}
		once = []string{"UNAUTHENTICATED"}
	}
	for outcome, reasons := range ends {
		for _, reason := range reasons {
			word := reason
			if reason == "INVALID_TOKEN" { // the simulator's word for what FCM says of message.token
				word = "INVALID_ARGUMENT"
			}
			row.ends[reason] = ending{word, outcome}
			row.mix[reason] = 0.005
		}
	}
	for _, reason := range heals {
		row.mix[reason] = 0.005
	}
	for i, reason := range once {
		row.rules = append(row.rules, simulator.Rule{Name: reason, Provider: p, Reason: reason, Every: int64(n/faultTimes + i), Times: 1})
	}
	return row
}

// parkRow is every reason that is of the credentials and not of a push: the app is parked, and its sends wait until a probe goes through.
func parkRow(n int, p simulator.Provider) faultRow {
	row := faultRow{name: "parks", cuts: true, own: parkedPause, breaks: faultTimes}
	reasons := []string{
		"BadTopic", "MissingTopic", "TopicDisallowed", "BadCertificate", "BadCertificateEnvironment", "Forbidden", "InvalidProviderToken", "MissingProviderToken",
		"BadEnvironmentKeyInToken", "BadEnvironmentKeyIdInToken",
	}
	if p == simulator.FCM {
		reasons = []string{"PERMISSION_DENIED", "NOT_FOUND"}
	}
	for i, reason := range reasons {
		row.rules = append(row.rules, simulator.Rule{Name: reason, Provider: p, Reason: reason, Every: int64(n*(i+1)/(len(reasons)+2) + i), Limit: 1})
	}
	return row
}
