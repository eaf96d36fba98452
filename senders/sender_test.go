package senders_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/vault"
)

// provider answers as the test says; a nil answer leaves the push open until its context ends.
type provider struct {
	mu     sync.Mutex
	answer func(r *senders.Request) *senders.Result
	pushes []string // tokens
	most   int
	open   int
}

func (p *provider) Limit() int { return 100 }

func (p *provider) Push(ctx context.Context, r *senders.Request, done senders.Done) {
	p.mu.Lock()
	p.pushes = append(p.pushes, r.Token)
	answer := p.answer
	p.open++
	p.most = max(p.most, p.open)
	p.mu.Unlock()
	go func() {
		a := answer(r)
		if a == nil {
			<-ctx.Done()
			a = &senders.Result{NoAttempt: true}
		}
		p.mu.Lock()
		p.open--
		p.mu.Unlock()
		done(r, *a)
	}()
}

// Close leaves what is open to its contexts: one provider stands for every account here.
func (p *provider) Close() error { return nil }

func (p *provider) pushed() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.pushes...)
}

func yes(*senders.Request) *senders.Result {
	return &senders.Result{Verdict: senders.Verdict{Outcome: pushv1.Outcome_OUTCOME_ACCEPTED}, Status: 200, LatencyUS: 5}
}

func apns(status int, reason string) func(*senders.Request) *senders.Result {
	return func(*senders.Request) *senders.Result {
		return &senders.Result{Verdict: senders.APNSVerdict(status, reason), Status: status, Reason: reason, LatencyUS: 5}
	}
}

// record is what a completion said, decoded.
type record struct {
	topic     schemas.Topic
	partition int32
	key       string
	event     schemas.Event
	value     []byte
}

// completion is a runner's side: it keeps what is said, by offset.
type completion struct {
	t          *testing.T
	layout     schemas.Layout
	generation int64

	mu   sync.Mutex
	lost bool
	said map[int64][]record
}

func (c *completion) Generation() int64 { return c.generation }

func (c *completion) MayPush() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.lost
}

func (c *completion) Complete(offset int64, say func(out *schemas.Out)) {
	records := []record{}
	if say != nil {
		out := schemas.NewOut(c.layout)
		say(out)
		out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
			e, err := schemas.Decode(value)
			if err != nil {
				c.t.Error(err)
			}
			records = append(records, record{topic, partition, string(key), e, append([]byte(nil), value...)})
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, twice := c.said[offset]; twice {
		c.t.Errorf("offset %d was completed twice", offset)
	}
	c.said[offset] = records
}

func (c *completion) of(offset int64) []record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said[offset]
}

// finished is the one DeliveryFinished of an offset.
func (c *completion) finished(offset int64) *pushv1.DeliveryFinished {
	c.t.Helper()
	for _, r := range c.of(offset) {
		if e, ok := r.event.(*pushv1.DeliveryFinished); ok {
			return e
		}
	}
	c.t.Fatalf("offset %d did not finish: %+v", offset, c.of(offset))
	return nil
}

// bench is one sender with all that stands around it.
type bench struct {
	*testing.T
	sender     *senders.Sender
	catalog    *senders.Catalog
	keyring    *vault.Keyring
	provider   *provider
	opened     []senders.Account
	openError  error
	done       *completion
	layout     schemas.Layout
	catchUp    func(ctx context.Context) error // of broadcasts
	broadcasts int                             // catch-ups of broadcasts
}

func newBench(t *testing.T, lane schemas.Lane, change func(o *senders.Options)) *bench {
	t.Helper()
	b := &bench{T: t, catalog: senders.NewCatalog(), layout: schemas.Layout{Partitions: 4}, provider: &provider{answer: yes}}
	b.done = &completion{t: t, layout: b.layout, generation: 7, said: map[int64][]record{}}
	b.catchUp = func(context.Context) error { return nil }
	var err error
	if b.keyring, err = vault.ParseKeyring(vault.NewKeyLine("k1")); err != nil {
		t.Fatal(err)
	}
	hasher, err := vault.ParseHasher(vault.NewHashKey())
	if err != nil {
		t.Fatal(err)
	}
	o := senders.Options{
		Transport: schemas.APNS, Lane: lane, Keyring: b.keyring, Hasher: hasher, Catalog: b.catalog,
		Open: func(_ context.Context, a senders.Account) (senders.Provider, error) {
			b.opened = append(b.opened, a)
			if b.openError != nil {
				return nil, b.openError
			}
			return b.provider, nil
		},
		CatchUpApps: func(context.Context) error { return nil },
		CatchUpBroadcasts: func(ctx context.Context) error {
			b.broadcasts++
			return b.catchUp(ctx)
		},
	}
	if change != nil {
		change(&o)
	}
	if b.sender, err = senders.New(o); err != nil {
		t.Fatal(err)
	}
	return b
}

// records are what say says, as the log would keep it.
func (b *bench) records(offset int64, say func(out *schemas.Out)) []schemas.Record {
	out := schemas.NewOut(b.layout)
	say(out)
	var records []schemas.Record
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		records = append(records, schemas.Record{
			Topic: topic, Partition: partition, Offset: offset + int64(len(records)), TimeUS: time.Now().UnixMicro(),
			Key: append([]byte(nil), key...), Value: append([]byte(nil), value...),
		})
	})
	return records
}

func (b *bench) credentials(app string) {
	b.Helper()
	plain, err := (&pushv1.ApnsCredentials{Topic: "com.example." + app}).MarshalVT()
	if err != nil {
		b.Fatal(err)
	}
	id := schemas.NewID()
	for _, r := range b.records(0, func(out *schemas.Out) {
		out.CredentialsSet(&pushv1.CredentialsSet{
			App: app, Transport: schemas.APNS, CredentialsId: id[:], Sealed: b.keyring.Seal(plain, app, "apns"),
		})
	}) {
		if err := b.sender.ApplyApps(r); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) tell(say func(out *schemas.Out)) {
	b.Helper()
	for _, r := range b.records(0, say) {
		if err := b.catalog.ApplyBroadcasts(r); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) deliver(ctx context.Context, records ...schemas.Record) {
	b.Helper()
	for _, r := range records {
		in := schemas.Batch{Topic: r.Topic, Partition: r.Partition, Records: []schemas.Record{r}}
		if err := b.sender.Deliver(ctx, in, b.done); err != nil {
			b.Fatal(err)
		}
	}
}

func (b *bench) direct(offset int64, app, token string, change func(e *pushv1.SendRequested)) schemas.Record {
	id, request := schemas.NewID(), schemas.NewID()
	now := time.Now().UnixMicro()
	e := &pushv1.SendRequested{
		SendId: id[:], RequestId: request[:], App: app, Token: token, RequestedAtUs: now, RegisteredAtUs: now - 1e6,
		Content: &pushv1.Content{Alert: pushv1.Content_ALERT_TEXT, Text: "hello"},
	}
	if change != nil {
		change(e)
	}
	d := schemas.Device{App: app, Transport: schemas.APNS, Token: token}
	return b.records(offset, func(out *schemas.Out) { out.SendRequested(schemas.Direct, d, e) })[0]
}

func (b *bench) bulk(offset int64, broadcast schemas.ID, app, token string) schemas.Record {
	d := schemas.Device{App: app, Transport: schemas.APNS, Token: token}
	return b.records(offset, func(out *schemas.Out) {
		out.SendRequested(schemas.Bulk, d, &pushv1.SendRequested{BroadcastId: broadcast[:], Token: token, RegisteredAtUs: 5})
	})[0]
}

// retryOf is the record that a completion moved to a tier, as it comes back at another offset.
func (b *bench) retryOf(from, offset int64) (schemas.Record, *pushv1.SendRequested) {
	b.Helper()
	for _, r := range b.done.of(from) {
		if e, ok := r.event.(*pushv1.SendRequested); ok {
			return schemas.Record{
				Topic: r.topic, Partition: r.partition, Offset: offset, TimeUS: time.Now().UnixMicro(), Key: []byte(r.key), Value: r.value,
			}, e
		}
	}
	b.Fatalf("offset %d was not moved: %+v", from, b.done.of(from))
	return schemas.Record{}, nil
}

func request(id schemas.ID, app, text string) *pushv1.BroadcastRequested {
	record := schemas.NewID()
	return &pushv1.BroadcastRequested{
		BroadcastId: id[:], RecordId: record[:], App: app, RequestedAtUs: 9,
		Content: &pushv1.Content{Alert: pushv1.Content_ALERT_TEXT, Text: text},
	}
}

func TestAnAcceptedSendWritesOneRecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		in := b.direct(3, "campus", "aa", nil)
		b.deliver(t.Context(), in)
		synctest.Wait()
		if n := len(b.done.of(3)); n != 1 {
			t.Fatalf("want one record, got %d", n)
		}
		got := b.done.finished(3)
		if got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED || !got.First || got.Attempt != 1 || got.LatencyUs != 5 || got.Generation != 7 ||
			got.Source.Offset != 3 || got.Source.Lane != schemas.Direct || got.Source.Tier != 0 || len(got.RequestId) == 0 {
			t.Errorf("want a first-try success from offset 3, got %+v", got)
		}
		if r := b.done.of(3)[0]; r.partition != in.Partition || len(r.key) != 8 {
			t.Errorf("want partition %d and a hash as key, got %d and %d bytes", in.Partition, r.partition, len(r.key))
		}
	})
}

func TestADeadTokenIsInvalidatedInTheSameCompletion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		b.provider.answer = apns(410, "Unregistered")
		b.deliver(t.Context(), b.direct(1, "campus", "aa", func(e *pushv1.SendRequested) { e.RegisteredAtUs = 77 }))
		synctest.Wait()
		if got := b.done.finished(1); got.Outcome != pushv1.Outcome_OUTCOME_TOKEN_INVALID || got.Reason != "Unregistered" {
			t.Errorf("want token_invalid, got %+v", got)
		}
		for _, r := range b.done.of(1) {
			if e, ok := r.event.(*pushv1.TokenInvalidated); ok {
				if e.AsOfUs != 77 || e.Token != "aa" || e.App != "campus" || r.topic != schemas.Devices {
					t.Errorf("want campus's aa dead as of 77, got %+v in %s", e, r.topic)
				}
				return
			}
		}
		t.Error("want TokenInvalidated")
	})
}

// TestASendThatFailsComesBackThroughItsTier follows one send through its retries to its end.
func TestASendThatFailsComesBackThroughItsTier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		b.provider.answer = apns(503, "ServiceUnavailable")
		b.deliver(t.Context(), b.direct(0, "campus", "aa", nil))
		synctest.Wait()
		for attempt, tier := range []uint32{1, 2, 3} {
			at := int64(attempt)
			back, e := b.retryOf(at, at+1)
			if want := (schemas.SendTopic{Transport: schemas.APNS, Lane: schemas.Direct, Tier: tier}).Topic(); back.Topic != want {
				t.Fatalf("want %s, got %s", want, back.Topic)
			}
			if int(e.Attempt) != attempt+1 || e.Source.Offset != at || e.Generation != 7 || e.LastReason != "ServiceUnavailable" {
				t.Errorf("want attempt %d from offset %d, got %+v", attempt+1, at, e)
			}
			attempted, ok := b.done.of(at)[0].event.(*pushv1.DeliveryAttempted)
			if !ok || attempted.First != (attempt == 0) || int(attempted.Attempt) != attempt+1 {
				t.Errorf("want DeliveryAttempted %d, got %+v", attempt+1, attempted)
			}
			due := b.sender.NotBefore(back)
			if due != e.NotBeforeUs {
				t.Errorf("want due at %d, got %d", e.NotBeforeUs, due)
			}
			time.Sleep(time.Until(time.UnixMicro(due))) //nolint:forbidigo // the bubble's clock
			if attempt == 2 {
				b.provider.answer = yes
			}
			b.deliver(t.Context(), back)
			synctest.Wait()
		}
		got := b.done.finished(3)
		if got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED || got.Attempt != 4 || got.First {
			t.Errorf("want accepted at the fourth attempt, got %+v", got)
		}
	})
}

func TestASendIsPushedOnceHoweverOftenItStandsInTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		first := b.direct(1, "campus", "aa", nil)
		again := first
		again.Offset = 2
		b.deliver(t.Context(), first, again)
		known := b.direct(3, "campus", "bb", nil)
		e, err := known.Event()
		if err != nil {
			t.Fatal(err)
		}
		send, _ := e.(*pushv1.SendRequested)
		b.sender.Remember(known.Partition, &pushv1.DeliveryFinished{SendId: send.SendId})
		b.deliver(t.Context(), known)
		synctest.Wait()
		if got := b.provider.pushed(); len(got) != 1 {
			t.Errorf("want one push, got %v", got)
		}
		for _, offset := range []int64{2, 3} {
			if said := b.done.of(offset); said == nil || len(said) != 0 {
				t.Errorf("offset %d: want completed in silence, got %v", offset, said)
			}
		}
		b.done.generation = 8 // taken over from ourselves: what the log does not show as done is done again
		b.deliver(t.Context(), b.at(first, 4))
		synctest.Wait()
		if got := b.provider.pushed(); len(got) != 2 {
			t.Errorf("want a second push under a new ownership, got %v", got)
		}
	})
}

func (b *bench) at(r schemas.Record, offset int64) schemas.Record {
	r.Offset = offset
	return r
}

func TestWhatIsNoLongerOursIsNeitherPushedNorCompleted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		b.provider.answer = func(*senders.Request) *senders.Result { return nil }
		ctx, cancel := context.WithCancel(t.Context())
		in := b.direct(1, "campus", "aa", nil)
		b.deliver(ctx, in)
		synctest.Wait()
		cancel()
		synctest.Wait()
		b.done.mu.Lock()
		b.done.lost = true
		b.done.mu.Unlock()
		b.deliver(t.Context(), b.direct(2, "campus", "bb", nil))
		synctest.Wait()
		if len(b.done.said) != 0 || len(b.provider.pushed()) != 1 {
			t.Errorf("want nothing completed and one push, got %v and %v", b.done.said, b.provider.pushed())
		}
		b.done.lost = false
		b.provider.answer = yes
		b.deliver(t.Context(), in)
		synctest.Wait()
		if got := b.done.finished(1); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want the cancelled push made again, got %+v", got)
		}
	})
}

// batcher is a provider that takes many pushes at once, and answers them together.
type batcher struct {
	*provider
	answered func()
	sizes    []int
}

func (p *batcher) PushAll(_ context.Context, requests []*senders.Request, done senders.Done) {
	all := slices.Clone(requests)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sizes = append(p.sizes, len(all))
	for _, r := range all {
		p.pushes = append(p.pushes, r.Token)
	}
	go func() {
		for _, r := range all {
			done(r, *yes(r))
		}
		p.answered()
	}()
}

func TestSendsOfOneBatchStartTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &batcher{provider: &provider{}}
		b := newBench(t, schemas.Bulk, func(o *senders.Options) {
			o.Open = func(_ context.Context, a senders.Account) (senders.Provider, error) {
				p.answered = a.Answered
				return p, nil
			}
		})
		defer b.sender.Close()
		b.credentials("campus")
		broadcast := schemas.NewID()
		b.tell(func(out *schemas.Out) {
			out.BroadcastRequested(&pushv1.BroadcastRequested{
				BroadcastId: broadcast[:], RecordId: broadcast[:], App: "campus", Content: &pushv1.Content{Alert: pushv1.Content_ALERT_TEXT, Text: "hello"},
			})
		})
		const n = 350
		in := schemas.Batch{Topic: "sends.apns.bulk"}
		for i := range n {
			in.Records = append(in.Records, b.bulk(int64(i), broadcast, "campus", fmt.Sprintf("%04x", i)))
		}
		if err := b.sender.Deliver(t.Context(), in, b.done); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i := range n {
			if got := b.done.finished(int64(i)); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
				t.Fatalf("offset %d: want accepted, got %+v", i, got)
			}
		}
		if pushed := p.pushed(); len(pushed) != n || len(p.sizes) > 8 || slices.Max(p.sizes) != p.Limit() {
			t.Errorf("want %d pushes in a few batches of up to %d, got %d in %v", n, p.Limit(), len(pushed), p.sizes)
		}
	})
}

func TestABulkSendSaysWhatItsBroadcastSays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Bulk, nil)
		defer b.sender.Close()
		b.credentials("campus")
		var payloads []string
		b.provider.answer = func(r *senders.Request) *senders.Result {
			payloads = append(payloads, string(r.APNS.Payload))
			return yes(r)
		}
		known, unknown, foreign, off := schemas.NewID(), schemas.NewID(), schemas.NewID(), schemas.NewID()
		b.tell(func(out *schemas.Out) {
			out.BroadcastRequested(request(known, "campus", "the first"))
			out.BroadcastRequested(request(known, "campus", "the second loses"))
			out.BroadcastRequested(request(foreign, "other", "not yours"))
			out.BroadcastRequested(request(off, "campus", "never mind"))
			out.BroadcastCancelled(&pushv1.BroadcastCancelled{BroadcastId: off[:]})
		})
		release := make(chan struct{})
		b.catchUp = func(context.Context) error { <-release; return nil }
		b.deliver(t.Context(), b.bulk(1, unknown, "campus", "aa"), b.bulk(2, known, "campus", "bb"), b.bulk(3, foreign, "campus", "cc"), b.bulk(4, off, "campus", "dd"))
		synctest.Wait()
		if got := b.done.finished(2); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED || got.RequestedAtUs != 9 {
			t.Errorf("want the known one sent while the other waits, got %+v", got)
		}
		var m struct {
			Aps struct {
				Alert string `json:"alert"`
			} `json:"aps"`
		}
		if len(payloads) != 1 || json.Unmarshal([]byte(payloads[0]), &m) != nil || m.Aps.Alert != "the first" {
			t.Errorf("want the first record's text, got %q", payloads)
		}
		if b.done.of(1) != nil {
			t.Error("want the unknown one to wait for the end of broadcasts")
		}
		close(release)
		synctest.Wait()
		for offset, want := range map[int64]string{1: "rejected content_missing", 3: "rejected wrong_app", 4: "cancelled "} {
			if got := b.done.finished(offset); got.Outcome.Word()+" "+got.Reason != want {
				t.Errorf("offset %d: want %s, got %+v", offset, want, got)
			}
		}
	})
}

func TestAnAppWithoutCredentialsIsParkedAndGoesOnWithThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.deliver(t.Context(), b.direct(1, "campus", "aa", nil))
		synctest.Wait()
		back, e := b.retryOf(1, 2)
		if e.LastReason != "no_credentials" || e.Attempt != 0 || back.Topic != "retries.apns.direct.4" {
			t.Errorf("want parked for want of credentials, got %+v in %s", e, back.Topic)
		}
		b.credentials("campus")
		time.Sleep(30 * time.Second) //nolint:forbidigo // the bubble's clock
		b.deliver(t.Context(), back)
		synctest.Wait()
		if got := b.done.finished(2); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED || got.Attempt != 1 || got.First {
			t.Errorf("want accepted at the first attempt, got %+v", got)
		}
	})
}

func TestRefusedCredentialsParkTheAppAndNewOnesFreeIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		b.credentials("other")
		b.provider.answer = apns(403, "InvalidProviderToken")
		b.deliver(t.Context(), b.direct(1, "campus", "aa", nil))
		synctest.Wait()
		b.deliver(t.Context(), b.direct(2, "campus", "bb", nil))
		synctest.Wait()
		if got := b.provider.pushed(); len(got) != 1 {
			t.Errorf("want no push after the refusal, got %v", got)
		}
		if _, e := b.retryOf(2, 9); e.Attempt != 0 || e.LastReason != "InvalidProviderToken" {
			t.Errorf("want parked without an attempt, got %+v", e)
		}
		b.provider.answer = yes
		b.deliver(t.Context(), b.direct(3, "other", "cc", nil))
		synctest.Wait()
		if got := b.done.finished(3); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want the other app at work, got %+v", got)
		}
		b.credentials("campus")
		b.deliver(t.Context(), b.direct(4, "campus", "dd", nil))
		synctest.Wait()
		if got := b.done.finished(4); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want accepted under new credentials, got %+v", got)
		}
		if n := len(b.opened); n != 3 {
			t.Errorf("want a provider for each credentials, got %d", n)
		}
	})
}

// TestAParkedAppWithManySendsDelaysNobody: its sends pass by without an attempt, and come back once it has new credentials.
func TestAParkedAppWithManySendsDelaysNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const many = 20_000
		b := newBench(t, schemas.Bulk, nil)
		defer b.sender.Close()
		b.credentials("broken")
		b.credentials("sound")
		id := schemas.NewID()
		b.tell(func(out *schemas.Out) { out.BroadcastRequested(request(id, "broken", "to everybody")) })
		other := schemas.NewID()
		b.tell(func(out *schemas.Out) { out.BroadcastRequested(request(other, "sound", "to one")) })
		b.provider.answer = apns(403, "InvalidProviderToken")
		b.deliver(t.Context(), b.bulk(0, id, "broken", "first"))
		synctest.Wait()
		for i := range int64(many) {
			b.deliver(t.Context(), b.bulk(1+i, id, "broken", fmt.Sprint(i)))
		}
		b.provider.answer = yes
		began := time.Now()
		b.deliver(t.Context(), b.bulk(many+1, other, "sound", "aa"))
		synctest.Wait()
		if got := b.done.finished(many + 1); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED || time.Since(began) > 0 {
			t.Errorf("want the other app served at once, got %+v after %s", got, time.Since(began))
		}
		if n := len(b.provider.pushed()); n != 2 {
			t.Errorf("want one push of the broken app and one of the sound, got %d", n)
		}
		back, e := b.retryOf(many, many+2)
		if back.Topic != "retries.apns.bulk.4" || e.Attempt != 0 {
			t.Errorf("want its sends parked without an attempt, got %+v in %s", e, back.Topic)
		}
		time.Sleep(45 * time.Second) //nolint:forbidigo // the bubble's clock
		if due := b.sender.NotBefore(back); due <= time.Now().UnixMicro() {
			t.Error("want so many looked at more seldom than every 30 s")
		}
		b.credentials("broken")
		if due := b.sender.NotBefore(back); due > time.Now().UnixMicro() {
			t.Error("want a look at once after new credentials")
		}
		b.deliver(t.Context(), back)
		synctest.Wait()
		if got := b.done.finished(many + 2); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want it accepted then, got %+v", got)
		}
	})
}

func TestAProbeFreesAParkedApp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.openError = errors.New("no")
		b.credentials("campus")
		b.deliver(t.Context(), b.direct(1, "campus", "aa", nil), b.direct(2, "campus", "bb", nil))
		synctest.Wait()
		if _, e := b.retryOf(1, 9); e.LastReason != "credentials_unusable" {
			t.Errorf("want parked, got %+v", e)
		}
		b.openError = nil
		time.Sleep(31 * time.Second) //nolint:forbidigo // the bubble's clock
		b.deliver(t.Context(), b.direct(3, "campus", "cc", nil), b.direct(4, "campus", "dd", nil))
		synctest.Wait()
		if got := b.done.finished(3); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want the probe accepted, got %+v", got)
		}
		b.deliver(t.Context(), b.direct(5, "campus", "ee", nil))
		synctest.Wait()
		if got := b.done.finished(5); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want the app free, got %+v", got)
		}
	})
}

func TestAFloodOfBadTokensKillsNoPhones(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, func(o *senders.Options) { o.FloodLeast = 5 })
		defer b.sender.Close()
		b.credentials("campus")
		b.provider.answer = apns(400, "BadDeviceToken")
		for i := range int64(50) {
			b.deliver(t.Context(), b.direct(i, "campus", "a"+string(rune('a'+i)), nil))
			synctest.Wait()
		}
		dead, parked := 0, 0
		for i := range int64(50) {
			for _, r := range b.done.of(i) {
				switch r.event.(type) {
				case *pushv1.TokenInvalidated:
					dead++
				case *pushv1.SendRequested:
					parked++
				}
			}
		}
		if dead != 0 || parked != 50 {
			t.Errorf("want no token dropped, and 50 sends kept, got %d and %d", dead, parked)
		}
	})
}

func TestABadTokenIsBelievedOnceTheCredentialsHaveServedSomebody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		bad := apns(400, "BadDeviceToken")
		b.provider.answer = bad
		b.deliver(t.Context(), b.direct(0, "campus", "aa", nil))
		synctest.Wait()
		for at := range int64(2) { // nothing was ever taken: it may be the environment
			back, e := b.retryOf(at, at+1)
			if e.LastOutcome != pushv1.Outcome_OUTCOME_TOKEN_INVALID || e.LastReason != "BadDeviceToken" {
				t.Errorf("want another try of a token in doubt, got %+v", e)
			}
			time.Sleep(time.Until(time.UnixMicro(b.sender.NotBefore(back)))) //nolint:forbidigo // the bubble's clock
			b.deliver(t.Context(), back)
			synctest.Wait()
		}
		if got := b.done.finished(2); got.Outcome != pushv1.Outcome_OUTCOME_TOKEN_INVALID || len(b.done.of(2)) != 1 {
			t.Errorf("want an end after three tries that leaves the token alone, got %+v", b.done.of(2))
		}
		if n := len(b.opened); n != 2 || !b.opened[1].Apart || b.opened[0].Apart {
			t.Errorf("want the tokens in doubt on a connection of their own, got %+v", b.opened)
		}
		b.provider.answer = yes
		b.deliver(t.Context(), b.direct(10, "campus", "bb", nil))
		synctest.Wait()
		b.provider.answer = bad
		b.deliver(t.Context(), b.direct(11, "campus", "cc", nil))
		synctest.Wait()
		if len(b.done.of(11)) != 2 {
			t.Errorf("want the end and the token's, got %+v", b.done.of(11))
		}
	})
}

func TestAnOutageMovesSendsToATierInsteadOfTryingThemAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		b.provider.answer = apns(503, "ServiceUnavailable")
		for i := range int64(500) {
			b.deliver(t.Context(), b.direct(i, "campus", "t"+string(rune('a'+i)), nil))
			synctest.Wait()
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // the bubble's clock
		}
		for i := range int64(500) {
			if _, e := b.retryOf(i, 0); e.Attempt > 1 {
				t.Fatalf("want at most one attempt, got %d", e.Attempt)
			}
		}
		if n := len(b.provider.pushed()); n > 400 {
			t.Errorf("want the pushes to pause, got %d of 500", n)
		}
	})
}

// TestAStormKeepsNobodyInMemoryForLong: what was queued when the rate fell leaves for a tier when it has waited as long as it may, and is
// delivered when the storm is over.
func TestAStormKeepsNobodyInMemoryForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, func(o *senders.Options) { o.Rate = 100 })
		defer b.sender.Close()
		b.credentials("campus")
		b.provider.answer = func(*senders.Request) *senders.Result {
			return &senders.Result{Verdict: senders.FCMVerdict(429, "QUOTA_EXCEEDED", false), Status: 429, Reason: "QUOTA_EXCEEDED", LatencyUS: 5}
		}
		const n = 300
		for i := range int64(n) {
			b.deliver(t.Context(), b.direct(i, "campus", fmt.Sprint(i), nil))
		}
		time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		var back []schemas.Record
		for i := range int64(n) {
			if len(b.done.of(i)) == 0 {
				t.Fatalf("send %d: want it put off after 2 s, and it waits still", i)
			}
			r, e := b.retryOf(i, n+i)
			if wait := e.NotBeforeUs - time.Now().UnixMicro(); wait > 90e6 {
				t.Fatalf("send %d: want it back within minutes, got %d s", i, wait/1e6)
			}
			back = append(back, r)
		}
		if pushed := len(b.provider.pushed()); pushed > n/3 {
			t.Errorf("want most of them not pushed into the storm, got %d of %d", pushed, n)
		}
		b.provider.answer = yes
		time.Sleep(2 * time.Minute) //nolint:forbidigo // the bubble's clock
		b.deliver(t.Context(), back...)
		time.Sleep(10 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		for i := range int64(n) {
			if len(b.done.of(n+i)) == 0 {
				t.Fatalf("send %d: want it delivered after the storm, or put off once more", i)
			}
		}
	})
}

// TestOneAppsSilenceLeavesRoomForAnother fills an app's share with pushes that are never answered.
func TestOneAppsSilenceLeavesRoomForAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, func(o *senders.Options) { o.Window = 20 })
		defer b.sender.Close()
		b.credentials("slow")
		b.credentials("quick")
		b.provider.answer = func(r *senders.Request) *senders.Result {
			if r.Token[0] == 's' {
				return nil
			}
			return yes(r)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range int64(100) {
			b.deliver(ctx, b.direct(i, "slow", "s"+string(rune('a'+i)), nil))
		}
		b.deliver(ctx, b.direct(1000, "quick", "q", nil))
		synctest.Wait()
		if got := b.done.finished(1000); got.Outcome != pushv1.Outcome_OUTCOME_ACCEPTED {
			t.Errorf("want the quick app served, got %+v", got)
		}
		if b.provider.most > 20 {
			t.Errorf("want at most the window of 20 in flight, got %d", b.provider.most)
		}
		cancel()
		synctest.Wait()
	})
}

func TestWhatCannotBeReadIsADeadLetter(t *testing.T) {
	t.Parallel()
	b := newBench(t, schemas.Direct, nil)
	defer b.sender.Close()
	good := b.direct(0, "campus", "aa", nil)
	for i, value := range [][]byte{{}, {80, 0xff}, {81}, {80}} {
		r := b.at(good, int64(i))
		r.Value = value
		b.deliver(t.Context(), r)
		letter, ok := b.done.of(int64(i))[0].event.(*pushv1.DeadLettered)
		if n := len(b.done.of(int64(i))); n != 1 {
			t.Errorf("value %x: want the letter alone, got %d records", value, n)
		}
		if !ok || letter.Topic != "sends.apns.direct" || letter.Offset != int64(i) || letter.Stage != "sender.apns.direct" {
			t.Errorf("value %x: want a dead letter, got %+v", value, letter)
		}
	}
	if err := b.sender.Deliver(t.Context(), schemas.Batch{Topic: "sends.fcm.direct"}, b.done); err == nil {
		t.Error("want another transport's topic refused")
	}
}

// TestADeadLetterEndsItsSend: its broadcast counted it, and would wait for it for ever.
func TestADeadLetterEndsItsSend(t *testing.T) {
	t.Parallel()
	b := newBench(t, schemas.Bulk, nil)
	defer b.sender.Close()
	id := schemas.NewID()
	cut := b.bulk(1, id, "campus", "aa")
	cut.Value = append(slices.Clone(cut.Value[:19]), 0xff) // the broadcast, and nothing else that can be read
	b.deliver(t.Context(), cut)
	whole := b.bulk(2, id, "campus", "aa")
	out := schemas.NewOut(b.done.layout)
	b.sender.End(whole, 7, out) // as the runner does when a batch cannot be handled
	var ends []*pushv1.DeliveryFinished
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		e, err := schemas.Decode(value)
		if finished, ok := e.(*pushv1.DeliveryFinished); ok && topic == schemas.Deliveries && partition == whole.Partition && err == nil {
			ends = append(ends, finished)
		}
	})
	if len(ends) != 1 || ends[0].Generation != 7 {
		t.Fatalf("want one end, got %v", ends)
	}
	send := schemas.BulkSendID(id, schemas.Device{App: "campus", Transport: schemas.APNS, Token: "aa"})
	for _, e := range append(ends, b.done.finished(1)) {
		if schemas.IDFrom(e.BroadcastId) != id || schemas.IDFrom(e.SendId) != send || e.App != "campus" || e.Outcome != rejected ||
			e.Reason != "dead_letter" || !e.First || e.Source.GetLane() != schemas.Bulk || e.Source.GetOffset() == 0 {
			t.Errorf("got %v", e)
		}
	}
}

func TestAnExpiredSendIsNotPushed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, schemas.Direct, nil)
		defer b.sender.Close()
		b.credentials("campus")
		now := time.Now().UnixMicro()
		b.deliver(t.Context(), b.direct(1, "campus", "aa", func(e *pushv1.SendRequested) { e.ExpiresAtUs = now }),
			b.direct(2, "campus", "bb", func(e *pushv1.SendRequested) { e.RequestedAtUs = now - 25*3600*1e6 }),
			b.direct(3, "campus", "cc", func(e *pushv1.SendRequested) { e.Content.Encrypted, e.Content.Text = true, string(make([]byte, 5000)) }))
		synctest.Wait()
		for offset, want := range map[int64]string{1: "expired", 2: "expired", 3: "rejected"} {
			if got := b.done.finished(offset); got.Outcome.Word() != want || got.Attempt != 0 {
				t.Errorf("offset %d: want %s, got %+v", offset, want, got)
			}
		}
		if got := b.provider.pushed(); len(got) != 0 {
			t.Errorf("want no push, got %v", got)
		}
	})
}
