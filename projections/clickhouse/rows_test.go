package clickhouse

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

func record(off int64, say func(out *schemas.Out)) schemas.Record {
	out := schemas.NewOut(schemas.Layout{Partitions: 1})
	say(out)
	var r schemas.Record
	out.Each(func(topic schemas.Topic, part int32, key, value []byte) {
		r = schemas.Record{Topic: topic, Partition: part, Offset: off, Key: key, Value: value}
	})
	return r
}

func owner(off int64, lane schemas.Lane, tier uint32, generation int64) schemas.Record {
	return record(off, func(out *schemas.Out) {
		out.OwnerChanged(&pushv1.OwnerChanged{Transport: schemas.APNS, Lane: lane, Tier: tier, Generation: generation})
	})
}

func finish(off int64, lane schemas.Lane, tier uint32, generation int64) schemas.Record {
	return record(off, func(out *schemas.Out) {
		out.DeliveryFinished(0, 42, &pushv1.DeliveryFinished{
			App: "a", Transport: schemas.APNS, Outcome: pushv1.Outcome_OUTCOME_ACCEPTED, FinishedAtUs: 1,
			Source: &pushv1.Source{Lane: lane, Tier: tier}, Generation: generation,
		})
	})
}

func TestRepeatsAreOfOwnersThatHadLostTheirSource(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		before  owners
		records []schemas.Record
		want    []bool
	}{
		{"nobody said who owns", nil, []schemas.Record{finish(0, schemas.Bulk, 0, 3)}, []bool{false}},
		{"an older generation after the change", nil, []schemas.Record{
			finish(0, schemas.Bulk, 0, 3), owner(1, schemas.Bulk, 0, 4), finish(2, schemas.Bulk, 0, 3), finish(3, schemas.Bulk, 0, 4),
		}, []bool{false, true, false}},
		{"the state before the batch", owners{"sends.apns.bulk": 4}, []schemas.Record{finish(0, schemas.Bulk, 0, 3)}, []bool{true}},
		{"another lane and another tier are other sources", owners{"sends.apns.bulk": 4}, []schemas.Record{
			finish(0, schemas.Direct, 0, 3), finish(1, schemas.Bulk, 1, 3),
		}, []bool{false, false}},
		{"an owner that comes late changes nothing", owners{"sends.apns.bulk": 4}, []schemas.Record{
			owner(0, schemas.Bulk, 0, 2), finish(1, schemas.Bulk, 0, 3),
		}, []bool{true}},
		{"the router has no owner", owners{"sends.apns.router": 4}, []schemas.Record{finish(0, schemas.ByRouter, 0, 0)}, []bool{false}},
	} {
		rows, _, err := foldDeliveries(schemas.Batch{Topic: schemas.Deliveries, Records: c.records}, 0, c.before)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(rows.repeat, c.want) {
			t.Errorf("%s: want %v, got %v", c.name, c.want, rows.repeat)
		}
	}
}

func TestFoldLeavesItsArgumentsAlone(t *testing.T) {
	t.Parallel()
	before := owners{"sends.apns.bulk": 1}
	in := schemas.Batch{Topic: schemas.Deliveries, Records: []schemas.Record{owner(0, schemas.Bulk, 0, 9), finish(1, schemas.Bulk, 0, 9)}}
	_, after, err := foldDeliveries(in, 0, before)
	if err != nil || before["sends.apns.bulk"] != 1 || after["sends.apns.bulk"] != 9 {
		t.Errorf("before %v, after %v, %v", before, after, err)
	}
}

func TestRowsBelowThePositionAreSkipped(t *testing.T) {
	t.Parallel()
	in := schemas.Batch{Topic: schemas.Deliveries, Records: []schemas.Record{
		owner(0, schemas.Bulk, 0, 9), finish(1, schemas.Bulk, 0, 3), finish(2, schemas.Bulk, 0, 3),
	}}
	rows, after, err := foldDeliveries(in, 2, nil)
	if err != nil || rows.len() != 1 || rows.off[0] != 2 || len(after) != 0 {
		t.Errorf("%+v %v %v", rows, after, err)
	}
}

func TestTokensAndUsersAreHashed(t *testing.T) {
	t.Parallel()
	hash, err := vault.ParseHasher("AAECAwQFBgcICQoLDA0ODw==")
	if err != nil {
		t.Fatal(err)
	}
	d := schemas.Device{App: "a", Transport: schemas.FCM, Token: "secret-token"}
	r := record(5, func(out *schemas.Out) {
		out.TokenRegistered(&pushv1.TokenRegistered{App: d.App, Transport: d.Transport, Token: d.Token, UserId: "secret-user", Platform: "Android-fcm", RegisteredAtUs: 7})
	})
	rows, err := foldDevices(schemas.Batch{Topic: schemas.Devices, Records: []schemas.Record{r, {Topic: schemas.Devices, Offset: 6}}}, 0, hash)
	if err != nil {
		t.Fatal(err)
	}
	if rows.len() != 1 || rows.token[0] != hash.Hash(d.AppendKey(nil)) || rows.userHash[0] == 0 || rows.userHash[0] == rows.token[0] {
		t.Errorf("%+v", rows)
	}
	for _, c := range rows.columns() {
		texts, _ := c.values.([]string)
		for _, s := range texts {
			if s == "secret-token" || s == "secret-user" {
				t.Errorf("column %s holds %q", c.name, s)
			}
		}
	}
}

func TestColumnsAreAsLongAsTheRows(t *testing.T) {
	t.Parallel()
	in := schemas.Batch{Topic: schemas.Deliveries, Records: []schemas.Record{finish(1, schemas.Bulk, 0, 3), record(2, func(out *schemas.Out) {
		out.DeliveryAttempted(0, 42, &pushv1.DeliveryAttempted{App: "a", Transport: schemas.APNS, Source: &pushv1.Source{Lane: schemas.Bulk}})
	})}}
	rows, _, err := foldDeliveries(in, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range rows.columns() {
		if n := reflect.ValueOf(c.values).Len(); n != 2 {
			t.Errorf("column %s has %d of 2 values", c.name, n)
		}
	}
	if rows.token[0] != 42 {
		t.Errorf("token %d", rows.token[0])
	}
}

func TestTimesStayWithinTheTables(t *testing.T) {
	t.Parallel()
	for us, want := range map[int64]time.Time{
		-1:      time.UnixMicro(0).UTC(),
		1 << 62: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		1_000:   time.UnixMicro(1000).UTC(),
	} {
		if got := moment(us); !got.Equal(want) {
			t.Errorf("%d: want %v, got %v", us, want, got)
		}
	}
}

func FuzzFold(f *testing.F) {
	good := finish(0, schemas.Bulk, 0, 3)
	f.Add(good.Key, good.Value)
	changed := owner(0, schemas.Bulk, 0, 3)
	f.Add(changed.Key, changed.Value)
	f.Add([]byte("k"), []byte{byte(pushv1.EventType_EVENT_TYPE_TOKEN_REGISTERED), 10, 1, 'a'})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for _, topic := range []schemas.Topic{schemas.Deliveries, schemas.Devices} {
			in := schemas.Batch{Topic: topic, Records: []schemas.Record{{Topic: topic, Key: key, Value: value}}}
			var n int
			var err error
			if topic == schemas.Deliveries {
				var rows *deliveryRows
				if rows, _, err = foldDeliveries(in, 0, nil); err == nil {
					n = rows.len()
				}
			} else {
				var rows *deviceRows
				if rows, err = foldDevices(in, 0, vault.Hasher{}); err == nil {
					n = rows.len()
				}
			}
			if err != nil && !errors.Is(err, schemas.ErrMalformed) && !errors.Is(err, schemas.ErrUnknownType) {
				t.Errorf("%v is neither malformed nor unknown", err)
			}
			if n > 1 {
				t.Errorf("%d rows of one record", n)
			}
		}
	})
}

func TestStatementsAreSplitAtLineEnds(t *testing.T) {
	t.Parallel()
	got := splitStatements("A ';' b\nc;\n\n  D;\n")
	if !reflect.DeepEqual(got, []string{"A ';' b\nc", "D"}) {
		t.Errorf("%q", got)
	}
	all, err := allMigrations()
	if err != nil || len(all) == 0 {
		t.Fatal(err)
	}
	for i, m := range all {
		if int(m.version) != i+1 || len(m.statements) == 0 {
			t.Errorf("migration %s has number %d and %d statements at place %d", m.name, m.version, len(m.statements), i)
		}
	}
}
