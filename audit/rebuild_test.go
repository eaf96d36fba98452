package audit_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// tokens are the rows of a store that knows what was registered.
type tokens struct {
	applied []int64
	known   []string
}

func (r *tokens) Applied(context.Context) ([]int64, error) { return slices.Clone(r.applied), nil }

func (r *tokens) Apply(_ context.Context, in schemas.Batch) error {
	var said []string
	for _, rec := range in.Records {
		if rec.Tombstone() {
			continue
		}
		event, err := rec.Event()
		if err != nil {
			return err
		}
		if e, ok := event.(*pushv1.TokenRegistered); ok {
			said = append(said, e.Token)
		}
	}
	r.known = append(r.known, said...)
	r.applied[in.Partition] = in.Next()
	return nil
}

func (l *memoryLog) register(token string) {
	l.say(func(out *schemas.Out) {
		out.TokenRegistered(&pushv1.TokenRegistered{App: "moodle", Transport: schemas.FCM, Token: token, RegisteredAtUs: 1})
	})
}

func TestDevicesAreBuiltToTheEndOfTheLog(t *testing.T) {
	t.Parallel()
	l := newMemoryLog()
	want := []string{"a", "b", "c", "d"}
	for _, token := range want {
		l.register(token)
	}
	at := l.topics[schemas.Devices][0]
	l.topics[schemas.Devices][0] = append(at, schemas.Record{Topic: schemas.Devices, Offset: l.next[schemas.Devices][0], Key: []byte("k"), Value: []byte{byte(pushv1.EventType_EVENT_TYPE_TOKEN_REGISTERED), 0xff}})
	l.next[schemas.Devices][0]++
	rows := &tokens{applied: make([]int64, parts)}
	var last audit.Building
	b, err := audit.BuildDevices(t.Context(), l, rows, func(b audit.Building) {
		if b.Done < last.Done || b.Done > b.Total {
			t.Errorf("after %+v: %+v", last, b)
		}
		last = b
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(rows.known)
	if diff := cmp.Diff(want, rows.known); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	ends, _ := l.Ends(t.Context(), schemas.Devices)
	if diff := cmp.Diff(ends, rows.applied); diff != "" || b != last || b.Skipped != 1 || b.Done != b.Total {
		t.Errorf("%+v, offsets:\n%s", b, diff)
	}
}

func TestAnEventOfANewerVersionEndsABuild(t *testing.T) {
	t.Parallel()
	l := newMemoryLog()
	l.register("a")
	p := 0
	for len(l.topics[schemas.Devices][p]) == 0 {
		p++
	}
	l.topics[schemas.Devices][p][0].Value = []byte{0xfe}
	_, err := audit.BuildDevices(t.Context(), l, &tokens{applied: make([]int64, parts)}, func(audit.Building) {})
	if !errors.Is(err, schemas.ErrUnknownType) {
		t.Errorf("want ErrUnknownType, got %v", err)
	}
}

func TestAStoreAheadOfTheLogIsNotLevelled(t *testing.T) {
	t.Parallel()
	l := newMemoryLog()
	l.register("a")
	err := audit.ReadDevices(l)(t.Context(), 0, 0, 99, func(schemas.Batch) error { return nil })
	if !errors.Is(err, audit.ErrShort) {
		t.Errorf("want ErrShort, got %v", err)
	}
}
