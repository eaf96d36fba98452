package senders

import (
	"fmt"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

func TestProcessesTogetherKeepAProjectsQuota(t *testing.T) {
	t.Parallel()
	const partitions = 24
	for _, parts := range [][]int{{24}, {12, 12}, {7, 8, 9}, {1, 23}, {24, 0}} {
		t.Run(fmt.Sprint(parts), func(t *testing.T) {
			t.Parallel()
			var processes []*quota
			for i, n := range parts {
				q := NewQuotas(QuotaOptions{Rate: 10_000})
				for tier := range uint32(schemas.Tiers + 1) {
					owned := n
					if tier > 0 { // a process with few first sends has more of the tiers
						owned = parts[len(parts)-1-i]
					}
					q.owns(schemas.SendTopic{Transport: schemas.FCM, Lane: schemas.Bulk, Tier: tier}, float64(owned)/partitions)
				}
				processes = append(processes, q.ofProject("p"))
			}
			now, total := 1000*second, 0
			for ms := range int64(70_000) {
				at := now + ms*millisecond
				for _, p := range processes {
					for p.take(bulkLane, at) {
						if ms >= 10_000 {
							total++
						}
					}
				}
			}
			if total < 590_000 || total > 602_000 {
				t.Errorf("want 600,000 in a minute, got %d", total)
			}
		})
	}
}

func TestEachLaneHasTheQuotaLessWhatThoseBeforeItTake(t *testing.T) {
	t.Parallel()
	q := NewQuotas(QuotaOptions{Rate: 1_000}).ofProject("p")
	now := 1000 * second
	direct, express, bulk := 0, 0, 0
	for ms := range int64(20_000) {
		at := now + ms*millisecond
		for q.take(bulkLane, at) {
			bulk++
		}
		if ms%4 == 0 { // 250 a second
			if !q.take(expressLane, at) {
				t.Fatal("want express not held back by bulk")
			}
			express++
		}
		if ms%2 == 0 { // 500 a second
			if !q.take(directLane, at) {
				t.Fatal("want direct never held back")
			}
			direct++
		}
	}
	if direct != 10_000 || express != 5_000 || bulk < 4_500 || bulk > 5_500 {
		t.Errorf("want 10,000, 5,000 and the rest, got %d direct, %d express and %d bulk", direct, express, bulk)
	}
	for range 5 {
		q.rated(bulkLane, Result{Verdict: Verdict{throttled, SlowDown}}, now+20*second, now+20*second)
	}
	if rate, _ := q.now(directLane); rate != 1_000 {
		t.Errorf("want bulk's refusals to be bulk's own, got %.0f", rate)
	}
}

func TestProjectsAndAppsMayHaveRatesOfTheirOwn(t *testing.T) {
	t.Parallel()
	q := NewQuotas(QuotaOptions{Rate: 100, Projects: map[string]float64{"big": 500}, Ramp: time.Minute})
	if _, limit := q.ofProject("big").now(0); limit != 500 {
		t.Errorf("want 500, got %.0f", limit)
	}
	if _, limit := q.ofProject("small").now(0); limit != 100 {
		t.Errorf("want 100, got %.0f", limit)
	}
	if first := q.ofProject("big"); first != q.ofProject("big") || q.ofApp("campus") != nil || NewQuotas(QuotaOptions{}).ofProject("p") != nil {
		t.Error("want one quota for a project, and none where none is set")
	}
	q.setApp("campus", 50)
	q.owns(schemas.SendTopic{Lane: schemas.Direct}, 0.5)
	if _, limit := q.ofApp("campus").now(0); limit != 50*(1-tierShare)*0.5 {
		t.Errorf("want this process's part, got %.1f", limit)
	}
	q.setApp("campus", 80)
	if _, limit := q.ofApp("campus").now(bulkLane); limit != 80 {
		t.Errorf("want the new rate, got %.0f", limit)
	}
	q.setApp("campus", 0)
	if q.ofApp("campus") != nil {
		t.Error("want no limit any more")
	}
}
