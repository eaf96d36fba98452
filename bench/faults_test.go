package bench

import (
	"crypto/x509"
	"log/slog"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/simulator"
)

// faultPushes is how many pushes each fault gets: a few thousand, or CAMPANILE_FAULT_PUSHES (`make faults`: a million), and whether it
// is the long form, in which times are looked at.
func faultPushes(t *testing.T) (n int, long bool) {
	t.Helper()
	text := os.Getenv("CAMPANILE_FAULT_PUSHES")
	if text == "" {
		return 3000, false
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n, true
}

// TestNoFaultLosesAPush pushes through senders on the batching client while the simulator misbehaves, and counts in its ledger: each send
// ends once and as it should, nothing is pushed twice but where an answer was cut off, and no fault makes a storm of connections.
func TestNoFaultLosesAPush(t *testing.T) {
	t.Parallel()
	n, long := faultPushes(t)
	results := &faultResults{}
	for _, transport := range []schemas.Transport{schemas.APNS, schemas.FCM} {
		provider := simulator.APNS
		if transport == schemas.FCM {
			provider = simulator.FCM
		}
		for _, row := range faultRows(n, provider) {
			t.Run(transport.Word()+"/"+row.name, func(t *testing.T) {
				if !long { // a long one has the machine for itself
					t.Parallel()
				}
				results.add(runFault(t, transport, row, n, long))
			})
		}
	}
	if long {
		results.tell(t)
	}
}

func runFault(t *testing.T, transport schemas.Transport, row faultRow, n int, long bool) faultResult {
	t.Helper()
	scenario := simulator.Scenario{Seed: 7, Mix: row.mix, Rules: row.rules, RetryAfter: simulator.Duration(time.Second)}
	scenario.APNS.Connections, scenario.FCM.Connections = row.conns, row.conns
	s, err := simulator.Start(t.Context(), simulator.Options{Dir: t.TempDir(), Scenario: scenario, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	p := &provider{
		at: s.Identity(), roots: x509.NewCertPool(),
		client: simulator.NewClient(s.Identity().AdminURL, nil), pushes: senders.H2Transport,
	}
	if !p.roots.AppendCertsFromPEM([]byte(p.at.CAPEM)) {
		t.Fatal("want a certificate")
	}
	if p.account, err = p.client.ServiceAccount(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	phones := makePhones(n, transport)
	began := time.Now()
	l := newLoop(t, transport, p)
	outcomes := l.run(t, phones, func() {
		if row.during == nil {
			return
		}
		which := simulator.APNS
		if transport == schemas.FCM {
			which = simulator.FCM
		}
		if err := row.during(t.Context(), p.client, which); err != nil {
			t.Error(err)
		}
	})
	took := time.Since(began)
	l.sender.Close()
	if err := s.Close(); err != nil { // what was not read is in doubt when the last connection has ended
		t.Error(err)
	}
	stats := s.Stats()
	accepted := outcomes[pushv1.Outcome_OUTCOME_ACCEPTED]
	got := faultResult{
		Transport: transport.Word(), Fault: row.name, Pushes: n, Accepted: accepted, Ended: n - accepted, Lost: max(int64(accepted)-stats.Ledger.Unique, 0),
		Repeats: stats.Ledger.Repeats, Cut: stats.Cut, Doubt: stats.Doubt, Dials: stats.Opened, MostDials: int64(30 + 2*row.breaks),
		StallMS: l.stall.Milliseconds(), OwnMS: row.own.Milliseconds(), Seconds: took.Seconds(),
	}
	t.Logf("%+v", got)
	checkFault(t, row, &got, l, &stats, long)
	const slack = 2 * time.Second // of a machine that has other work
	if long && l.stall > row.own+slack {
		t.Errorf("want no stall longer than the fault, %s, got %s", row.own, l.stall)
	}
	return got
}

func checkFault(t *testing.T, row faultRow, got *faultResult, l *loop, stats *simulator.Stats, long bool) {
	t.Helper()
	invalid := l.outcomes[pushv1.Outcome_OUTCOME_TOKEN_INVALID]
	// A push may be taken, its answer cut off, and its token be called dead at the next try.
	if late := stats.Ledger.Unique - int64(got.Accepted); late < 0 || late > min(got.Cut+got.Doubt, int64(invalid)) {
		t.Errorf("want each of the %d accepted in the ledger, and nothing else: got %d", got.Accepted, stats.Ledger.Unique)
	}
	// On a machine that has much other work an answer may take longer than a push's two seconds, whatever the fault.
	if got.Repeats > got.Cut+got.Doubt || long && !row.cuts && got.Repeats > 0 {
		t.Errorf("want repeats only of answers that were cut (%d, and perhaps %d more), got %d", got.Cut, got.Doubt, got.Repeats)
	}
	if got.Dials > got.MostDials {
		t.Errorf("want at most %d connections, got %d", got.MostDials, got.Dials)
	}
	if len(stats.Violations) > 0 {
		t.Errorf("want no rule of HTTP/2 broken, got %v", stats.Violations)
	}
	checkEndings(t, row, got, l, stats)
}

// checkEndings compares how sends ended with what the provider answered: each reason that ends a send ended as many as heard it, as the
// table says, and no other did.
func checkEndings(t *testing.T, row faultRow, got *faultResult, l *loop, stats *simulator.Stats) {
	t.Helper()
	ends := row.ends
	if row.mix["dead"] > 0 {
		ends = map[string]ending{
			"Unregistered": {"Unregistered", pushv1.Outcome_OUTCOME_TOKEN_INVALID}, "UNREGISTERED": {"UNREGISTERED", pushv1.Outcome_OUTCOME_TOKEN_INVALID},
		}
	}
	want := map[ending]int{}
	for _, a := range stats.Answers {
		e, ends := ends[a.Reason]
		if ends && a.Status != 0 {
			want[e] += int(a.Count)
		}
	}
	sum := 0
	for e, n := range l.reasons {
		sum += n
		// An answer that was lost is heard again; a bad token is asked for again before anybody was served.
		if spare := want[e] - n; spare < 0 || int64(spare) > got.Cut+got.Doubt+100 {
			t.Errorf("%s (%s): want the %d sends that heard it ended by it, got %d", e.reason, e.outcome.Word(), want[e], n)
		}
		delete(want, e)
	}
	for e, n := range want {
		t.Errorf("%s (%s): want the %d sends that heard it ended by it, got none", e.reason, e.outcome.Word(), n)
	}
	if sum != got.Ended {
		t.Errorf("want every push accepted or ended by a reason, got %d of %d", sum, got.Ended)
	}
}
