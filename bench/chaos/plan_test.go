package chaos

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testPlan(seed uint64, a amounts) []step { return newPlan(rand.New(rand.NewPCG(seed, 0)), a) }

func TestAPlanHasWhatWasAskedForAndSparesNobody(t *testing.T) {
	t.Parallel()
	a := amounts{kills: 107, stops: 10, scales: 6, brokers: 4, stores: 1, engines: 2, cuts: 10, stopFor: 14, outageFor: 60, cutFor: 20}
	for seed := range uint64(50) {
		var got amounts
		killed, stopped, sick := map[string]int{}, map[string]int{}, map[string]int{}
		for _, s := range testPlan(seed, a) {
			got.kills += s.kills()
			sick[s.sick]++
			switch s.kind {
			case kill:
				if roles := slices.Sorted(slices.Values(s.roles)); len(roles) < 1 || len(roles) > most || len(slices.Compact(roles)) < len(s.roles) {
					t.Errorf("seed %d: %s", seed, s)
				}
			case stop:
				got.stops++
				got.stopFor = s.seconds
				stopped[s.roles[0]]++
			case scale:
				got.scales++
			case broker:
				got.brokers++
			case store:
				got.stores++
				got.outageFor = s.seconds
				for _, role := range s.during {
					if slices.Contains([]string{"ingest", "router", "projector"}, kindOf(role)) {
						t.Errorf("seed %d: %s: it could not start", seed, s)
					}
				}
			case engine:
				got.engines++
				if slices.Contains(s.during, "analytics") {
					t.Errorf("seed %d: %s: it could not start", seed, s)
				}
			case cut:
				got.cuts++
				got.cutFor = s.seconds
			}
			for _, role := range append(slices.Clone(s.during), s.roles...) {
				if s.kind == kill || slices.Contains(s.during, role) {
					killed[role]++
				}
			}
		}
		if diff := cmp.Diff(a, got, cmp.AllowUnexported(amounts{})); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
		if sick["apns"] == 0 || sick["fcm"] == 0 || sick[""] == 0 {
			t.Errorf("seed %d: a provider is never unavailable, or always: %v", seed, sick)
		}
		for _, role := range roleNames {
			if killed[role] < 8 || stopped[role] != 1 {
				t.Errorf("seed %d: %s is killed %d times and stopped %d times", seed, role, killed[role], stopped[role])
			}
		}
	}
}

func TestASeedIsAPlan(t *testing.T) {
	t.Parallel()
	a := amounts{kills: 20, stops: 3, brokers: 3}
	text := func(steps []step) (all []string) {
		for _, s := range steps {
			all = append(all, s.String())
		}
		return all
	}
	if diff := cmp.Diff(text(testPlan(7, a)), text(testPlan(7, a))); diff != "" {
		t.Errorf("the same seed twice:\n%s", diff)
	}
	if slices.Equal(text(testPlan(7, a)), text(testPlan(8, a))) {
		t.Error("two seeds, one plan")
	}
}
