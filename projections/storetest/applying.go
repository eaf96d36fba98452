package storetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func testEmpty(t *testing.T, open Open) {
	t.Helper()
	store := opened(t, open)
	if want, got := make([]int64, layout.Partitions), applied(t, store); !slices.Equal(want, got) {
		t.Errorf("applied: want %v, got %v", want, got)
	}
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "nobody"}
	states, err := store.Lookup(t.Context(), []schemas.Device{d, d}, schemas.Watermark{0, 0, 0})
	if err != nil || len(states) != 2 || !equalStates(states[0], schemas.DeviceState{}) || !equalStates(states[1], schemas.DeviceState{}) {
		t.Errorf("lookup of nobody: got %+v, %v", states, err)
	}
	if rows := pages(t.Context(), t, store, audience("moodle", schemas.FCM, 10, "site")); len(rows) != 0 {
		t.Errorf("an empty store has an audience: %v", rows)
	}
	if n, err := store.Estimate(t.Context(), "moodle", []string{"site"}); n != 0 || err != nil {
		t.Errorf("estimate: want 0, got %d, %v", n, err)
	}
	if sum := checksum(t, store); sum != 0 {
		t.Errorf("checksum of nothing: want 0, got %x", sum)
	}
	if states, err := store.Lookup(t.Context(), nil, nil); len(states) != 0 || err != nil {
		t.Errorf("lookup of no device: got %v, %v", states, err)
	}
}

func testFoldCases(t *testing.T, place func(*testing.T) Open) {
	t.Helper()
	d := schemas.Device{App: "moodle", Transport: schemas.APNS, Token: "d"}
	other := schemas.Device{App: "moodle", Transport: schemas.APNS, Environment: schemas.Sandbox, Token: "d"}
	sub, unsub := Subscribe(d, "site"), Unsubscribe(d, "site")
	reg, dead := Register(d, 10, "iOS"), Invalidate(d, 10)
	type says = []func(*schemas.Out)
	for name, c := range map[string]struct {
		log                  says
		known, alive, member bool
	}{
		"registered":                                 {says{reg}, true, true, false},
		"registered and subscribed":                  {says{reg, sub}, true, true, true},
		"subscribed first":                           {says{sub, reg}, true, true, true},
		"subscribed only":                            {says{sub}, false, false, true},
		"unsubscribed":                               {says{reg, sub, unsub}, true, true, false},
		"subscribed again":                           {says{reg, sub, unsub, sub}, true, true, true},
		"unregistered":                               {says{reg, sub, Unregister(d)}, false, false, false},
		"unregistered, registered: no channels":      {says{reg, sub, Unregister(d), reg}, true, true, false},
		"unregistered before":                        {says{Unregister(d), reg, sub}, true, true, true},
		"subscribed after the unregistration":        {says{reg, Unregister(d), sub, reg}, true, true, true},
		"dead as of its registration":                {says{reg, sub, dead}, true, false, true},
		"dead as of later":                           {says{reg, sub, Invalidate(d, 11)}, true, false, true},
		"dead as of before":                          {says{reg, sub, Invalidate(d, 9)}, true, true, true},
		"registered again after its death":           {says{reg, sub, dead, Register(d, 11, "iOS")}, true, true, true},
		"registered again, as old as its death":      {says{reg, sub, dead, reg}, true, false, true},
		"death known before the registration":        {says{dead, sub, reg}, true, false, true},
		"death survives an unregistration":           {says{reg, dead, Unregister(d), reg, sub}, true, false, true},
		"a later death takes an earlier one's place": {says{reg, sub, dead, Invalidate(d, 9)}, true, true, true},
		"dead as of zero":                            {says{Register(d, 0, "iOS"), sub, Invalidate(d, 0)}, true, false, true},
		"the other environment died":                 {says{reg, sub, Register(other, 10, "ios"), Invalidate(other, 10)}, true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			store, l := opened(t, place(t)), NewLog(layout)
			for _, say := range c.log {
				l.Say(say)
			}
			catchUp(t, store, l)
			same(t, store, l)
			states, err := store.Lookup(t.Context(), []schemas.Device{d}, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := states[0]
			if got.Known != c.known || got.Alive != c.alive || slices.Contains(got.Channels, "site") != c.member {
				t.Errorf("want known=%v alive=%v subscribed=%v, got %+v", c.known, c.alive, c.member, got)
			}
			rows := pages(t.Context(), t, store, audience("moodle", schemas.APNS, 10, "site"))
			in := slices.ContainsFunc(rows, func(r Row) bool { return r.Environment == schemas.Production })
			if want := c.alive && c.member; in != want {
				t.Errorf("in the audience: want %v, got %v", want, in)
			}
		})
	}
}

func testRandomHistories(t *testing.T, open Open) {
	t.Helper()
	r := random(t)
	store, l := opened(t, open), NewLog(layout)
	devices := RandomDevices(r, 60)
	for range 8 {
		SayRandom(r, l, devices, 120)
		for p, end := range l.Ends() {
			// Cuts anywhere, and each batch starts with something that was applied before.
			for at := int64(0); at < end; {
				in := l.Batch(int32(p), max(0, at-int64(r.IntN(9))))
				in.Records = in.Records[:1+r.IntN(len(in.Records))]
				if err := store.Apply(t.Context(), in); err != nil {
					t.Fatal(err)
				}
				at = max(at, in.Next())
			}
		}
		same(t, store, l)
	}
}

func testCompacted(t *testing.T, open Open) {
	t.Helper()
	r := random(t)
	l := NewLog(layout)
	devices := RandomDevices(r, 40)
	SayRandom(r, l, devices, 600)
	want := ModelOf(t, l).Checksum()

	store, compacted := opened(t, open), l.Compacted()
	catchUp(t, store, compacted)
	if got := checksum(t, store); want != got {
		t.Errorf("checksum of the compacted log: want %x, got %x", want, got)
	}
	same(t, store, compacted)
	if !slices.Equal(l.Ends(), compacted.Ends()) || !l.Ends().Reached(applied(t, store)) {
		t.Errorf("applied: want %v, got %v", l.Ends(), applied(t, store))
	}
}

func testReplay(t *testing.T, open Open) {
	t.Helper()
	r := random(t)
	store, l := opened(t, open), NewLog(layout)
	SayRandom(r, l, RandomDevices(r, 30), 300)
	catchUp(t, store, l)
	want, ends := checksum(t, store), applied(t, store)
	for p := range layout.Partitions {
		for from := int64(0); from < ends[p]; from += 7 {
			in := l.Batch(p, from)
			in.Records = in.Records[:min(len(in.Records), 20)]
			if err := store.Apply(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Apply(t.Context(), schemas.Batch{Topic: schemas.Devices, Partition: p}); err != nil {
			t.Fatalf("an empty batch: %v", err)
		}
	}
	if got := checksum(t, store); want != got {
		t.Errorf("checksum after the replay: want %x, got %x", want, got)
	}
	if got := applied(t, store); !slices.Equal(ends, got) {
		t.Errorf("applied after the replay: want %v, got %v", ends, got)
	}
}

func testTombstones(t *testing.T, open Open) {
	t.Helper()
	store, l := opened(t, open), NewLog(layout)
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "d"}
	l.Say(Register(d, 1, "Android-fcm"))
	l.Say(Subscribe(d, "site"))
	catchUp(t, store, l)
	want := checksum(t, store)
	for _, r := range l.Batch(layout.Of(d), 0).Records {
		l.Append(layout.Of(d), r.Key, nil)
	}
	catchUp(t, store, l)
	if got := checksum(t, store); want != got {
		t.Errorf("checksum: want %x, got %x", want, got)
	}
	if want, got := l.Ends()[layout.Of(d)], applied(t, store)[layout.Of(d)]; want != got {
		t.Errorf("applied: want %d, got %d", want, got)
	}
}

func testBadRecords(t *testing.T, place func(*testing.T) Open) {
	t.Helper()
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "d"}
	encode := func(say func(*schemas.Out)) []byte {
		one := NewLog(schemas.Layout{Partitions: 1})
		one.Say(say)
		return one.Batch(0, 0).Records[0].Value
	}
	for name, c := range map[string]struct {
		value []byte
		want  error
	}{
		"a type of the future":      {[]byte{126, 1, 2, 3}, schemas.ErrUnknownType},
		"an empty value":            {[]byte{}, schemas.ErrMalformed},
		"a torn event":              {[]byte{byte(pushv1.EventType_EVENT_TYPE_TOKEN_REGISTERED), 0x0a, 200}, schemas.ErrMalformed},
		"an event of another topic": {schemas.AppendEvent(nil, &pushv1.AppConfigured{App: "moodle"}), schemas.ErrMalformed},
		"a token with NUL":          {encode(Register(schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "a\x00b"}, 1, "x")), schemas.ErrMalformed},
		"no token":                  {encode(Unregister(schemas.Device{App: "moodle", Transport: schemas.FCM})), schemas.ErrMalformed},
		"a token that is no UTF-8":  {encode(Invalidate(schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "\xff"}, 1)), schemas.ErrMalformed},
		"no app":                    {encode(Subscribe(schemas.Device{Transport: schemas.FCM, Token: "d"}, "site")), schemas.ErrMalformed},
		"no channel":                {encode(Subscribe(d, "")), schemas.ErrMalformed},
		"no transport":              {encode(Unsubscribe(schemas.Device{App: "moodle", Token: "d"}, "site")), schemas.ErrMalformed},
		"FCM has no sandbox":        {encode(Register(schemas.Device{App: "moodle", Transport: schemas.FCM, Environment: schemas.Sandbox, Token: "d"}, 1, "x")), schemas.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			store, l := opened(t, place(t)), NewLog(layout)
			l.Say(Register(d, 1, "Android-fcm"))
			catchUp(t, store, l)
			want, ends := checksum(t, store), applied(t, store)
			l.Say(Subscribe(d, "site"))
			l.Append(layout.Of(d), []byte("bad"), c.value)
			if err := store.Apply(t.Context(), l.Batch(layout.Of(d), 0)); !errors.Is(err, c.want) {
				t.Errorf("want %v, got %v", c.want, err)
			}
			if got := checksum(t, store); want != got {
				t.Errorf("checksum: want %x, got %x", want, got)
			}
			if got := applied(t, store); !slices.Equal(ends, got) {
				t.Errorf("applied: want %v, got %v", ends, got)
			}
		})
	}
	t.Run("bad attributes are mended", func(t *testing.T) {
		store, l := opened(t, place(t)), NewLog(layout)
		l.Say(Register(d, 1, "Android\x00\xff"))
		catchUp(t, store, l)
		states, err := store.Lookup(t.Context(), []schemas.Device{d}, nil)
		if err != nil || states[0].Platform != "Android\uFFFD\uFFFD" {
			t.Errorf("want a registration without NUL and broken UTF-8, got %+v, %v", states, err)
		}
	})
	t.Run("a batch of another topic or partition", func(t *testing.T) {
		store, l := opened(t, place(t)), NewLog(schemas.Layout{Partitions: 1})
		l.Say(Register(d, 1, "Android-fcm"))
		in := l.Batch(0, 0)
		in.Partition = layout.Partitions
		if err := store.Apply(t.Context(), in); !errors.Is(err, projections.ErrLayout) {
			t.Errorf("want %v, got %v", projections.ErrLayout, err)
		}
		in.Topic, in.Partition = schemas.Apps, 0
		if err := store.Apply(t.Context(), in); err == nil {
			t.Error("a batch of another topic was applied")
		}
	})
}

func testTwoAppliers(t *testing.T, open Open) {
	t.Helper()
	r := random(t)
	store, l := opened(t, open), NewLog(layout)
	SayRandom(r, l, RandomDevices(r, 30), 300)
	var group sync.WaitGroup
	for range 2 {
		sizes := []int{1 + r.IntN(9), 1 + r.IntN(9), 1 + r.IntN(9)}
		group.Go(func() {
			for p, end := range l.Ends() {
				for at := int64(0); at < end; {
					in := l.Batch(int32(p), at)
					in.Records = in.Records[:min(len(in.Records), sizes[p])]
					if err := store.Apply(t.Context(), in); err != nil {
						t.Error(err)
						return
					}
					at = in.Next()
				}
			}
		})
	}
	group.Wait()
	same(t, store, l)
}

func testCancelled(t *testing.T, open Open) {
	t.Helper()
	store, l := opened(t, open), NewLog(layout)
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "d"}
	l.Say(Register(d, 1, "Android-fcm"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var page schemas.Page
	_, applied1 := store.Applied(ctx)
	_, lookup := store.Lookup(ctx, []schemas.Device{d}, nil)
	_, find := store.FindToken(ctx, d.App, d.Token, nil)
	_, estimate := store.Estimate(ctx, d.App, []string{"site"})
	for name, err := range map[string]error{
		"Applied": applied1, "Lookup": lookup, "FindToken": find, "Estimate": estimate,
		"Apply": store.Apply(ctx, l.Batch(layout.Of(d), 0)),
		"Page":  store.Page(ctx, audience("moodle", schemas.FCM, 1, "site"), &page),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: want %v, got %v", name, context.Canceled, err)
		}
	}
	if sum := checksum(t, store); sum != 0 {
		t.Error("a cancelled Apply wrote something")
	}
}

func testReopen(t *testing.T, open Open) {
	t.Helper()
	r := random(t)
	l := NewLog(layout)
	devices := RandomDevices(r, 30)
	for range 3 {
		store, err := open(layout)
		if err != nil {
			t.Fatal(err)
		}
		SayRandom(r, l, devices, 100)
		catchUp(t, store, l)
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	same(t, opened(t, open), l)
}

func testLayout(t *testing.T, open Open) {
	t.Helper()
	store, err := open(layout)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(schemas.Layout{Partitions: layout.Partitions + 1}); !errors.Is(err, projections.ErrLayout) {
		t.Errorf("want %v, got %v", projections.ErrLayout, err)
	}
	if _, err := open(schemas.Layout{}); err == nil {
		t.Error("a store of no partitions was opened")
	}
}
