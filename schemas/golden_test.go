package schemas_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

var update = flag.Bool("update", false, "write the golden files anew; review the change as one of the API")

// TestWireFormOfEachEventIsGolden holds every event, every field set, to the bytes that stand in the logs of users.
func TestWireFormOfEachEventIsGolden(t *testing.T) {
	t.Parallel()
	for _, e := range everyEvent(t) {
		name := strings.TrimPrefix(e.EventType().String(), "EVENT_TYPE_")
		t.Run(strings.ToLower(name), func(t *testing.T) {
			t.Parallel()
			fill(e.(proto.Message).ProtoReflect(), 1)
			got := schemas.AppendEvent(nil, e)
			path := filepath.Join("testdata", "golden", strings.ToLower(name)+".hex")
			if *update {
				if err := os.WriteFile(path, []byte(hexLines(got)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v: `make golden` writes it for a new event", err)
			}
			want, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
			if err != nil {
				t.Fatal(err)
			}
			// The golden bytes must decode to what they meant; new fields may follow.
			old, err := schemas.Decode(want)
			if err != nil {
				t.Fatalf("the golden bytes no longer decode: %v", err)
			}
			if string(want) != string(got) {
				t.Errorf("the wire form changed (`make golden` if fields were added):\n%s", cmp.Diff(old, e, protocmp.Transform()))
			}
			back, err := schemas.Decode(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e, back, protocmp.Transform()); diff != "" {
				t.Errorf("decoded differs (-want +got):\n%s", diff)
			}
		})
	}
}

// everyEvent returns one empty event of each type and fails for a type without one.
func everyEvent(t *testing.T) []schemas.Event {
	t.Helper()
	var events []schemas.Event
	values := pushv1.EventType(0).Descriptor().Values()
	for i := range values.Len() {
		n := pushv1.EventType(values.Get(i).Number())
		if n == pushv1.EventType_EVENT_TYPE_UNSPECIFIED {
			continue
		}
		e := pushv1.New(n)
		if e == nil {
			t.Fatalf("%s has no event in pushv1.New", n)
		}
		if e.EventType() != n {
			t.Fatalf("%s makes an event of type %s", n, e.EventType())
		}
		events = append(events, e)
	}
	return events
}

// fill sets every field to a value that follows from its number.
func fill(m protoreflect.Message, salt int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		n := int(f.Number()) + salt
		if f.IsList() {
			list := m.Mutable(f).List()
			for j := range 2 {
				if f.Message() != nil {
					fill(list.AppendMutable().Message(), n+j)
				} else {
					list.Append(scalar(f, n+j))
				}
			}
			continue
		}
		if f.Message() != nil {
			fill(m.Mutable(f).Message(), n)
			continue
		}
		m.Set(f, scalar(f, n))
	}
}

func scalar(f protoreflect.FieldDescriptor, n int) protoreflect.Value {
	switch f.Kind() { //nolint:exhaustive // the kinds that our events use; another one panics below
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("%s-%d", f.Name(), n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(fmt.Sprintf("%016d", n)))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n) * 1_000_003)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n) * 3)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n) * 5)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) / 4)
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	}
	panic("fill: add " + f.Kind().String())
}

func hexLines(b []byte) string {
	var s strings.Builder
	for text := hex.EncodeToString(b); text != ""; {
		n := min(96, len(text))
		s.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	return s.String()
}

func FuzzDecode(f *testing.F) {
	for n := range 128 {
		if e := pushv1.New(pushv1.EventType(n)); e != nil {
			fill(e.(proto.Message).ProtoReflect(), 1)
			f.Add(schemas.AppendEvent(nil, e))
		}
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := schemas.Decode(value)
		if err != nil {
			return
		}
		// What decodes, encodes, and decodes to the same again.
		again, err := schemas.Decode(schemas.AppendEvent(nil, e))
		if err != nil {
			t.Fatalf("its own encoding does not decode: %v", err)
		}
		a, b := e.(proto.Message), again.(proto.Message)
		if !proto.Equal(a, b) && proto.Size(a) != proto.Size(b) { // NaN equals nothing
			t.Fatalf("decoded differs:\n%v\n%v", a, b)
		}
		r := schemas.Record{Value: value}
		if err := r.Into(pushv1.New(r.Type())); err != nil {
			t.Fatalf("Event takes it, Into does not: %v", err)
		}
	})
}
