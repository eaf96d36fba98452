package projections_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/projections/storetest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

var layout = schemas.Layout{Partitions: 3}

// fold is the smallest store: states in a map, and the offsets that guard them.
type fold struct {
	states  map[schemas.Device]projections.State
	applied []int64
}

func newFold() *fold {
	return &fold{map[schemas.Device]projections.State{}, make([]int64, layout.Partitions)}
}

func (f *fold) apply(t *testing.T, in schemas.Batch) {
	t.Helper()
	facts, err := projections.Read(in)
	if err != nil {
		t.Fatal(err)
	}
	from := f.applied[in.Partition]
	if facts.Next <= from {
		return
	}
	if !slices.IsSortedFunc(facts.Devices(), projections.Compare) {
		t.Error("the devices are not in key order")
	}
	states := make([]projections.State, len(facts.Devices()))
	for i, d := range facts.Devices() {
		states[i] = f.states[d]
	}
	for _, c := range facts.Fold(from, states) {
		f.states[c.Device] = c.After
		if c.After.Empty() {
			delete(f.states, c.Device)
		}
	}
	f.applied[in.Partition] = facts.Next
}

func (f *fold) checksum() uint64 {
	return storetest.Model(f.states).Checksum()
}

// TestFoldOfACompactedLogIsTheFoldOfTheWhole also cuts, repeats and compacts at random on the way.
func TestFoldOfACompactedLogIsTheFoldOfTheWhole(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		log := storetest.NewLog(layout)
		devices := storetest.RandomDevices(r, 25)
		live := newFold()
		for range 5 {
			storetest.SayRandom(r, log, devices, 80)
			if r.IntN(2) == 0 {
				log = log.Compacted() // the store goes on over the gap
			}
			for p := range layout.Partitions {
				for {
					in := log.Batch(p, max(0, live.applied[p]-int64(r.IntN(20))))
					if in.Next() <= live.applied[p] {
						break
					}
					in.Records = in.Records[:1+r.IntN(len(in.Records))]
					live.apply(t, in)
				}
			}
			want := storetest.ModelOf(t, log).Checksum()
			rebuilt, compacted := newFold(), log.Compacted()
			for p := range layout.Partitions {
				rebuilt.apply(t, log.Batch(p, 0))
			}
			again := newFold()
			for p := range layout.Partitions {
				again.apply(t, compacted.Batch(p, 0))
			}
			if live.checksum() != want || rebuilt.checksum() != want || again.checksum() != want {
				t.Fatalf("seed %d: want %x, live %x, rebuilt %x, from the compacted log %x", seed, want, live.checksum(), rebuilt.checksum(), again.checksum())
			}
		}
	}
}

func TestFoldSkipsWhatIsApplied(t *testing.T) {
	t.Parallel()
	log := storetest.NewLog(schemas.Layout{Partitions: 1})
	d := schemas.Device{App: "moodle", Transport: schemas.FCM, Token: "d"}
	log.Say(storetest.Register(d, 1, "Android-fcm"))
	log.Say(storetest.Subscribe(d, "a"))
	log.Say(storetest.Subscribe(d, "b"))
	facts, err := projections.Read(log.Batch(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	changes := facts.Fold(2, make([]projections.State, 1))
	if len(changes) != 1 || changes[0].After.Known || !slices.Equal(changes[0].After.Channels, []string{"b"}) {
		t.Errorf("from offset 2: want channel b alone, got %+v", changes)
	}
	if changes := facts.Fold(3, make([]projections.State, 1)); len(changes) != 0 {
		t.Errorf("from the end: want nothing, got %+v", changes)
	}
}

func TestUnknownTypeIsToldFromMalformed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		value []byte
		want  error
	}{
		{[]byte{125}, schemas.ErrUnknownType},
		{[]byte{0}, schemas.ErrMalformed},
		{[]byte{}, schemas.ErrMalformed},
		{[]byte{byte(pushv1.EventType_EVENT_TYPE_SEND_REQUESTED)}, schemas.ErrMalformed},
	} {
		in := schemas.Batch{Topic: schemas.Devices, Records: []schemas.Record{{Topic: schemas.Devices, Value: c.value}}}
		if _, err := projections.Read(in); !errors.Is(err, c.want) {
			t.Errorf("%v: want %v, got %v", c.value, c.want, err)
		}
	}
}

// FuzzRead looks for values that break the fold instead of being refused.
func FuzzRead(f *testing.F) {
	d := schemas.Device{App: "moodle", Transport: schemas.APNS, Environment: schemas.Sandbox, Token: "token"}
	log := storetest.NewLog(schemas.Layout{Partitions: 1})
	for _, say := range []func(*schemas.Out){
		storetest.Register(d, 5, "iOS"), storetest.Unregister(d), storetest.Invalidate(d, 7), storetest.Subscribe(d, "site"), storetest.Unsubscribe(d, "site"),
	} {
		log.Say(say)
	}
	for _, r := range log.Batch(0, 0).Records {
		f.Add(r.Value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		in := schemas.Batch{Topic: schemas.Devices, Records: []schemas.Record{{Topic: schemas.Devices, Value: value}}}
		facts, err := projections.Read(in)
		if err != nil {
			if !errors.Is(err, schemas.ErrMalformed) && !errors.Is(err, schemas.ErrUnknownType) {
				t.Fatalf("neither malformed nor unknown: %v", err)
			}
			return
		}
		for _, d := range facts.Devices() {
			if schemas.CheckApp(d.App) != nil || schemas.CheckToken(d.Token) != nil {
				t.Fatalf("a device that no key can hold: %+v", d)
			}
		}
		facts.Fold(0, make([]projections.State, len(facts.Devices())))
	})
}
