package router

import (
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestABroadcastStopsOnlyWhereTheRuleSays(t *testing.T) {
	t.Parallel()
	const nowUS = int64(10 * time.Hour / time.Microsecond)
	rule := StopRule{Above: 0.5, Young: time.Hour, Least: 100}
	fails := counts{accepted: 40, invalid: 30, rejected: 31}
	young := nowUS - 1
	for name, c := range map[string]struct {
		rule   StopRule
		counts counts
		change func(b *broadcast)
		setUS  int64
		want   bool
	}{
		"too many fail":              {rule, fails, nil, young, true},
		"just half of them":          {rule, counts{accepted: 50, rejected: 50}, nil, young, false},
		"too few to tell":            {rule, counts{rejected: 99}, nil, young, false},
		"cancelled ones do not fail": {rule, counts{accepted: 100, cancelled: 900, expired: 900}, nil, young, false},
		"old credentials":            {rule, fails, nil, nowUS - int64(2*time.Hour/time.Microsecond), false},
		"old ones, watched for ever": {StopRule{Above: 0.5, Least: 100}, fails, nil, 1, true},
		"unknown credentials":        {rule, fails, nil, 0, false},
		"no rule":                    {StopRule{Least: 100}, fails, nil, young, false},
		"paused already":             {rule, fails, func(b *broadcast) { b.paused = true }, young, false},
		"somebody has resumed it":    {rule, fails, func(b *broadcast) { b.resumedAtUS = 1 }, young, false},
		"cancelled":                  {rule, fails, func(b *broadcast) { b.cancel = true }, young, false},
		"all is expanded":            {rule, fails, func(b *broadcast) { b.done = [slots]int{1, 1} }, young, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &broadcast{app: "app", contents: []content{{request: &request{Ranges: 1}}}}
			b.sums[1] = c.counts
			if c.change != nil {
				c.change(b)
			}
			got := c.rule.stop(b, func(k laneKey) int64 {
				if k == (laneKey{"app", 1}) {
					return c.setUS
				}
				return 0
			}, nowUS)
			if (got != "") != c.want {
				t.Errorf("want a stop: %v, got %q", c.want, got)
			}
			if c.want && !strings.Contains(got, schemas.Transports[1].Word()) {
				t.Errorf("%q does not name the transport", got)
			}
		})
	}
}

func TestCredentialTimesAreThoseOfTheLog(t *testing.T) {
	t.Parallel()
	var c credentialTimes
	out := schemas.NewOut(schemas.Layout{Partitions: 1})
	out.AppConfigured(&pushv1.AppConfigured{App: "app"})
	out.CredentialsSet(&pushv1.CredentialsSet{App: "app", Transport: schemas.APNS, SetAtUs: 5})
	out.CredentialsSet(&pushv1.CredentialsSet{App: "app", Transport: schemas.APNS, SetAtUs: 7})
	out.Each(func(topic schemas.Topic, p int32, key, value []byte) {
		if err := c.apply(schemas.Record{Topic: topic, Partition: p, Key: key, Value: value}); err != nil {
			t.Error(err)
		}
	})
	if got := []int64{c.of(laneKey{"app", 0}), c.of(laneKey{"app", 1}), c.of(laneKey{"other", 0})}; got[0] != 7 || got[1] != 0 || got[2] != 0 {
		t.Errorf("got %v", got)
	}
}
