package bench

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/fcm"
	"github.com/campanile-push/campanile/vault"
)

// loop is a sender and what stands for its log: what a completion moves to a tier is delivered again.
type loop struct {
	sender    *senders.Sender
	transport schemas.Transport
	broadcast schemas.ID

	mu       sync.Mutex
	out      *schemas.Out
	moved    []schemas.Record
	outcomes map[schemas.Outcome]int
	reasons  map[ending]int // of sends that did not end as accepted
	last     time.Time      // when a send ended
	stall    time.Duration
	changed  chan struct{}
}

// ending is how a send ended, in the provider's words.
type ending struct {
	reason  string
	outcome schemas.Outcome
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
		transport: transport, broadcast: schemas.NewID(), out: schemas.NewOut(layout), outcomes: map[schemas.Outcome]int{}, reasons: map[ending]int{},
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
				if e.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
					l.reasons[ending{e.Reason, e.Outcome}]++
				}
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

// run pushes to every phone, and returns how the sends ended. during is called when half of them are under way.
func (l *loop) run(t *testing.T, phones []Phone, during func()) map[schemas.Outcome]int {
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
			if before := sent; before < len(phones)/2 && before+size >= len(phones)/2 {
				during()
			}
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
