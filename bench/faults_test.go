package bench

import (
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/fcm"
	"github.com/campanile-push/campanile/simulator"
	"github.com/campanile-push/campanile/vault"
)

// faultPushes is how many pushes each fault gets: a few thousand, or CAMPANILE_FAULT_PUSHES (`make faults`: a million).
func faultPushes(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CAMPANILE_FAULT_PUSHES")
	if text == "" {
		return 3000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// faultRow is what a provider does to pushes, and what becomes of them.
type faultRow struct {
	name  string
	rules []simulator.Rule
	conns simulator.ConnScenario
	mix   simulator.Mix
	// cuts: some answers are withheld after the push was taken, so that repeats are right.
	cuts bool
	// uncounted: the simulator does not count as cut off what it took and never answered on a frozen connection, nor answers that it
	// had written and that the reset of the connection took with it.
	uncounted bool
}

// faultRows are every fault of a connection, each alone at one push of so many, limits of connections, and all of it at once.
func faultRows(n int) []faultRow {
	every := int64(n / 20) // 20 times in a run
	var rows []faultRow
	var mixed []simulator.Rule
	for _, f := range simulator.Faults() {
		r := simulator.Rule{Name: string(f), Fault: f, Every: every, Times: 1, Pause: simulator.Duration(50 * time.Millisecond)}
		cuts := f == simulator.FaultRSTAfter || f == simulator.FaultResetAfter || f == simulator.FaultBlackhole || f == simulator.FaultFreeze
		if f == simulator.FaultFreeze { // each takes the seconds in which a silent peer is found out
			r.Every = int64(n / 3)
		}
		// A reset takes the answers that are on their way with it, and a drip or a pause may outlast a deadline.
		cuts = cuts || f == simulator.FaultReset || f == simulator.FaultGoAway || f == simulator.FaultUnprocessed
		if f == simulator.FaultDrip { // a hundred of them
			r.Pause = simulator.Duration(time.Millisecond)
		}
		uncounted := f == simulator.FaultFreeze || f == simulator.FaultReset || f == simulator.FaultResetAfter
		rows = append(rows, faultRow{name: string(f), rules: []simulator.Rule{r}, cuts: cuts, uncounted: uncounted})
		r.Every = 3*r.Every + int64(len(mixed))
		mixed = append(mixed, r)
	}
	conns := simulator.ConnScenario{Streams: 100, FirstStreams: 1, Shrink: true, Window: 1000, ConnWindow: 65_535}
	mix := simulator.Mix{"dead": 0.05, "unavailable": 0.02, "throttled": 0.02}
	return append(rows,
		faultRow{name: "limits", conns: conns},
		faultRow{name: "refusals", mix: mix},
		faultRow{name: "mixed", rules: mixed, conns: conns, mix: mix, cuts: true, uncounted: true})
}

// TestNoFaultLosesAPush pushes through senders on the batching client while the simulator misbehaves, and counts in its ledger: each send
// ends once and as it should, nothing is pushed twice but where an answer was cut off, and no fault makes a storm of connections.
func TestNoFaultLosesAPush(t *testing.T) {
	t.Parallel()
	n := faultPushes(t)
	for _, transport := range []schemas.Transport{schemas.APNS, schemas.FCM} {
		for _, row := range faultRows(n) {
			t.Run(transport.Word()+"/"+row.name, func(t *testing.T) {
				runFault(t, transport, row, n)
			})
		}
	}
}

func runFault(t *testing.T, transport schemas.Transport, row faultRow, n int) {
	t.Helper()
	scenario := simulator.Scenario{Seed: 7, Mix: row.mix, Rules: row.rules}
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
	began := time.Now()
	l := newLoop(t, transport, p)
	outcomes := l.run(t, makePhones(n, transport))
	stats, err := p.client.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pushes in %s: %v; accepted %d, repeats %d, cut %d, connections %d, longest without an end %s", n, time.Since(began).Round(time.Millisecond),
		outcomes, stats.Ledger.Accepted, stats.Ledger.Repeats, stats.Cut, stats.Opened, l.stall.Round(time.Millisecond))
	accepted := int64(outcomes[pushv1.Outcome_OUTCOME_ACCEPTED])
	// A push may be taken, its answer cut off, and its token be called dead at the next try.
	if late := stats.Ledger.Unique - accepted; late < 0 || late > min(stats.Cut, int64(outcomes[pushv1.Outcome_OUTCOME_TOKEN_INVALID])) {
		t.Errorf("want each of the %d accepted in the ledger, and nothing else: got %d", accepted, stats.Ledger.Unique)
	}
	if other := n - outcomes[pushv1.Outcome_OUTCOME_ACCEPTED] - outcomes[pushv1.Outcome_OUTCOME_TOKEN_INVALID]; other != 0 {
		t.Errorf("want all accepted or their tokens dead, got %v", outcomes)
	}
	if dead := outcomes[pushv1.Outcome_OUTCOME_TOKEN_INVALID]; (dead > 0) != (row.mix["dead"] > 0) {
		t.Errorf("want dead tokens only where the mix has some, got %d", dead)
	}
	if stats.Ledger.Repeats > stats.Cut && !row.uncounted || !row.cuts && stats.Ledger.Repeats > 0 {
		t.Errorf("want repeats only of answers that were cut (%d), got %d", stats.Cut, stats.Ledger.Repeats)
	}
	if most := int64(20 + 25*len(row.rules)*2); stats.Opened > most {
		t.Errorf("want at most %d connections, got %d", most, stats.Opened)
	}
	if len(stats.Violations) > 0 {
		t.Errorf("want no rule of HTTP/2 broken, got %v", stats.Violations)
	}
}

// loop is a sender and what stands for its log: what a completion moves to a tier is delivered again.
type loop struct {
	sender    *senders.Sender
	transport schemas.Transport
	broadcast schemas.ID

	mu       sync.Mutex
	out      *schemas.Out
	moved    []schemas.Record
	outcomes map[schemas.Outcome]int
	last     time.Time // when a send ended
	stall    time.Duration
	changed  chan struct{}
}

func newLoop(t *testing.T, transport schemas.Transport, p *provider) *loop {
	t.Helper()
	keyring, err := vault.ParseKeyring(vault.NewKeyLine("k"))
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := vault.ParseHasher(vault.NewHashKey())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := p.credentials(transport)
	if err != nil {
		t.Fatal(err)
	}
	layout := schemas.Layout{Partitions: 1}
	l := &loop{
		transport: transport, broadcast: schemas.NewID(), out: schemas.NewOut(layout), outcomes: map[schemas.Outcome]int{},
		last: time.Now(), changed: make(chan struct{}, 1),
	}
	catalog := senders.NewCatalog()
	nothing := func(context.Context) error { return nil }
	l.sender, err = senders.New(senders.Options{
		Transport: transport, Lane: schemas.Bulk, Keyring: keyring, Hasher: hasher, Catalog: catalog, CatchUpApps: nothing, CatchUpBroadcasts: nothing,
		Open: func(ctx context.Context, a senders.Account) (senders.Provider, error) {
			const timeout = 2 * time.Second // what is never answered is not waited for as long as usual
			if a.FCM != nil {
				return fcm.Open(ctx, a, fcm.Options{Endpoint: p.at.FCMURL + "/v1", RootCAs: p.roots, Transport: p.pushes, Timeout: timeout})
			}
			return apns.Open(ctx, a, apns.Options{Production: p.at.APNSURL, RootCAs: p.roots, Transport: p.pushes, Timeout: timeout})
		},
		Rate: 1e9, Tiers: []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 200 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.sender.Close)
	out := schemas.NewOut(layout)
	out.CredentialsSet(&pushv1.CredentialsSet{App: app, Transport: transport, CredentialsId: l.broadcast[:], Sealed: keyring.Seal(plain, app, transport.Word())})
	out.BroadcastRequested(&pushv1.BroadcastRequested{BroadcastId: l.broadcast[:], RecordId: l.broadcast[:], App: app, Content: payload()})
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		r := schemas.Record{Topic: topic, Partition: partition, TimeUS: time.Now().UnixMicro(), Key: key, Value: value}
		apply := catalog.ApplyBroadcasts
		if topic == schemas.Apps {
			apply = l.sender.ApplyApps
		}
		if err := apply(r); err != nil {
			t.Fatal(err)
		}
	})
	return l
}

// stay is one record's completion: where it stands is in the record that it came with.
type stay struct{ l *loop }

func (s stay) Generation() int64 { return 1 }
func (s stay) MayPush() bool     { return true }

func (s stay) Complete(_ int64, say func(out *schemas.Out)) {
	l := s.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if say == nil { // a repeat that was dropped
		l.outcomes[0]++
		return
	}
	say(l.out)
	l.out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		r := schemas.Record{Topic: topic, Partition: partition, TimeUS: time.Now().UnixMicro(), Key: append([]byte{}, key...), Value: append([]byte{}, value...)}
		switch r.Type() { //nolint:exhaustive // attempts and dead tokens are no ends
		case pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED:
			var e pushv1.DeliveryFinished
			if r.Into(&e) == nil {
				l.outcomes[e.Outcome]++
				l.stall = max(l.stall, time.Since(l.last))
				l.last = time.Now()
			}
		case pushv1.EventType_EVENT_TYPE_SEND_REQUESTED:
			l.moved = append(l.moved, r)
		}
	})
	l.out.Reset()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// run pushes to every phone, and returns how the sends ended.
func (l *loop) run(t *testing.T, phones []Phone) map[schemas.Outcome]int {
	t.Helper()
	const batch, outstanding = 500, 8000
	offset, sent := int64(0), 0
	deliver := func(topic schemas.Topic, records []schemas.Record) {
		for i := range records {
			records[i].Offset = offset
			offset++
		}
		if err := l.sender.Deliver(t.Context(), schemas.Batch{Topic: topic, Records: records}, stay{l}); err != nil {
			t.Fatal(err)
		}
	}
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for before := -1; ; {
		l.mu.Lock()
		ended := 0
		for _, n := range l.outcomes {
			ended += n
		}
		var due []schemas.Record
		kept := l.moved[:0]
		for _, r := range l.moved {
			if l.sender.NotBefore(r) <= time.Now().UnixMicro() {
				due = append(due, r)
			} else {
				kept = append(kept, r)
			}
		}
		l.moved = kept
		l.mu.Unlock()
		for _, r := range due {
			deliver(r.Topic, []schemas.Record{r})
		}
		if sent < len(phones) && sent-ended < outstanding {
			size := min(batch, len(phones)-sent)
			out := schemas.NewOut(schemas.Layout{Partitions: 1})
			for _, p := range phones[sent : sent+size] {
				bulkSend(out, l.broadcast, p)
			}
			var records []schemas.Record
			var topic schemas.Topic
			out.Each(func(at schemas.Topic, _ int32, key, value []byte) {
				topic = at
				records = append(records, schemas.Record{Topic: at, TimeUS: time.Now().UnixMicro(), Key: key, Value: value})
			})
			deliver(topic, records)
			sent += size
			continue
		}
		if ended == len(phones) {
			return l.outcomes
		}
		if ended != before {
			before = ended
			patience.Reset(time.Minute)
		}
		select {
		case <-l.changed:
		case <-look.C:
		case <-patience.C:
			t.Fatalf("nothing has ended for a minute: %d of %d, %v", ended, len(phones), l.outcomes)
		}
	}
}
