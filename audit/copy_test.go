package audit_test

import (
	"errors"
	"testing"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestCopySaysTheSameInAnotherLayout(t *testing.T) {
	t.Parallel()
	old, grown := schemas.NewOut(schemas.Layout{Partitions: 4}), schemas.NewOut(schemas.Layout{Partitions: 32})
	old.AppConfigured(&pushv1.AppConfigured{App: "app"})
	old.CredentialsSet(&pushv1.CredentialsSet{App: "app", Transport: schemas.FCM})
	old.AccessKeyIssued(&pushv1.AccessKeyIssued{App: "app", KeyId: "k"})
	old.AccessKeyRevoked(&pushv1.AccessKeyRevoked{App: "app", KeyId: "k"})
	for _, token := range []string{"a", "b", "c"} {
		old.TokenRegistered(&pushv1.TokenRegistered{App: "app", Transport: schemas.FCM, Token: token, Platform: "android-fcm"})
		old.ChannelSubscribed(&pushv1.ChannelSubscribed{App: "app", Transport: schemas.FCM, Token: token, Channel: "room"})
		old.ChannelUnsubscribed(&pushv1.ChannelUnsubscribed{App: "app", Transport: schemas.FCM, Token: token, Channel: "room"})
		old.TokenInvalidated(&pushv1.TokenInvalidated{App: "app", Transport: schemas.FCM, Token: token})
		old.TokenUnregistered(&pushv1.TokenUnregistered{App: "app", Transport: schemas.FCM, Token: token})
	}
	var before, after audit.Sum
	old.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		before.Add(topic, key, value)
		if err := audit.Copy(grown, schemas.Record{Topic: topic, Partition: partition, Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
	})
	homes := map[string]int32{}
	grown.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		after.Add(topic, key, value)
		if topic == schemas.Devices {
			r := schemas.Record{Topic: topic, Key: key, Value: value}
			e, err := r.Event()
			if err != nil {
				t.Fatal(err)
			}
			token := e.(interface{ GetToken() string }).GetToken() //nolint:forcetypeassert // every event of devices has one
			if home, seen := homes[token]; seen && home != partition {
				t.Errorf("%s stands in partitions %d and %d", token, home, partition)
			}
			homes[token] = partition
		}
	})
	if before != after || before.Records != 19 {
		t.Errorf("want the same 19 records, got %+v and %+v", before, after)
	}
}

func TestCopyRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	out := schemas.NewOut(schemas.Layout{Partitions: 4})
	if err := audit.Copy(out, schemas.Record{Topic: schemas.Devices, Value: []byte{250}}); !errors.Is(err, schemas.ErrUnknownType) {
		t.Errorf("an unknown type: want %v, got %v", schemas.ErrUnknownType, err)
	}
	if err := audit.Copy(out, schemas.Record{Topic: schemas.Devices, Key: []byte("k")}); !errors.Is(err, schemas.ErrMalformed) {
		t.Errorf("a tombstone, which nobody writes there: want %v, got %v", schemas.ErrMalformed, err)
	}
	stray := schemas.AppendEvent(nil, &pushv1.SendRequested{Token: "x"})
	if err := audit.Copy(out, schemas.Record{Topic: schemas.Devices, Value: stray}); err == nil {
		t.Error("an event of another topic was copied")
	}
	if out.Len() != 0 {
		t.Errorf("want nothing said, got %d records", out.Len())
	}
}

func TestSumTellsRecordsApart(t *testing.T) {
	t.Parallel()
	sum := func(records ...[2]string) (s audit.Sum) {
		for _, r := range records {
			s.Add(schemas.Apps, []byte(r[0]), []byte(r[1]))
		}
		return s
	}
	a := sum([2]string{"k", "v"}, [2]string{"l", "w"})
	if a != sum([2]string{"l", "w"}, [2]string{"k", "v"}) {
		t.Error("order counts")
	}
	for _, other := range []audit.Sum{sum([2]string{"k", "v"}), sum([2]string{"k", "w"}, [2]string{"l", "v"}), sum([2]string{"kv", ""}, [2]string{"l", "w"})} {
		if a == other {
			t.Errorf("two sets of records have the sum %+v", a)
		}
	}
}
