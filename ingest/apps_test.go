package ingest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// TestCompactionChangesNoKey folds random histories of an app's keys live and as compaction leaves them: the last record of each key, in
// the order of those. What every key may must be the same.
func TestCompactionChangesNoKey(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		out := schemas.NewOut(schemas.Layout{Partitions: 1})
		for i := range 40 {
			sayRandom(r, out, int64(i))
		}
		var all []schemas.Record
		last := map[string]int{}
		out.Each(func(topic schemas.Topic, p int32, key, val []byte) {
			last[string(key)] = len(all)
			all = append(all, schemas.Record{Topic: topic, Partition: p, Offset: int64(len(all)), Key: key, Value: val})
		})
		live, compacted := registry{apps: map[string]*appState{}}, registry{apps: map[string]*appState{}}
		for i, rec := range all {
			if err := live.apply(rec); err != nil {
				t.Fatal(err)
			}
			if last[string(rec.Key)] != i {
				continue
			}
			if err := compacted.apply(rec); err != nil {
				t.Fatal(err)
			}
		}
		if want, got := rights(&live), rights(&compacted); !reflect.DeepEqual(want, got) {
			t.Fatalf("seed %d: live %v, compacted %v", seed, want, got)
		}
	}
}

const randomKeys = 5

// rights says what each key may.
func rights(r *registry) (all []string) {
	for n := range randomKeys {
		hash := [32]byte{byte(n)}
		g, app, key := r.find("app", &hash)
		pending := key && g.key.pending
		all = append(all, fmt.Sprint(app, key, pending, g.permissions, g.owner, g.policy, len(g.blocked)))
	}
	waiting, _ := r.pending("app", time.Time{}, randomKeys)
	return append(all, fmt.Sprint(waiting))
}

func sayRandom(r *rand.Rand, out *schemas.Out, at int64) {
	n := r.IntN(randomKeys)
	id := fmt.Sprint("key", n)
	switch r.IntN(8) {
	case 0:
		out.AppConfigured(&pushv1.AppConfigured{
			App: "app", SiteKeysCannotRegister: r.IntN(2) == 0, UnprovenSitesMayBroadcast: r.IntN(2) == 0, BlockedNetworks: []string{"10.0.0.0/8"}[:r.IntN(2)],
		})
	case 1:
		out.AccessKeyRevoked(&pushv1.AccessKeyRevoked{App: "app", KeyId: id, RevokedAtUs: at})
	default:
		e := &pushv1.AccessKeyIssued{
			App: "app", KeyId: id, ValueHash: append([]byte{byte(n)}, make([]byte, 31)...), Permissions: uint32(r.IntN(16)),
			IssuedAtUs: int64(r.IntN(4)), Pending: r.IntN(5) == 0,
		}
		if r.IntN(4) > 0 {
			url := fmt.Sprint("https://site", r.IntN(2), ".example")
			e.Claim = &pushv1.Claim{Url: url, Channel: fmt.Sprint("channel", r.IntN(3)), Proven: r.IntN(2) == 0}
		}
		out.AccessKeyIssued(e)
	}
}
