package router

import (
	"math"
	"testing"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestThereIsASlotForEachTransport(t *testing.T) {
	t.Parallel()
	if len(pushv1.Limit_name) != limits {
		t.Errorf("want %d limits, got %d", len(pushv1.Limit_name), limits)
	}
	if len(schemas.Transports) != slots {
		t.Fatalf("want %d slots, got %d", len(schemas.Transports), slots)
	}
	for i, transport := range schemas.Transports {
		if got, ok := slot(transport); !ok || got != i {
			t.Errorf("%v: want slot %d, got %d", transport, i, got)
		}
	}
}

func TestPaceIsTheLowerOfRateAndSpread(t *testing.T) {
	t.Parallel()
	const second = 1_000_000
	for name, c := range map[string]struct {
		b    broadcast
		r    *request
		now  int64
		want pace
	}{
		"none":                              {want: pace{0, never}},
		"a rate":                            {r: &request{Rate: 5}, want: pace{5, never}},
		"a spread":                          {r: &request{SpreadSeconds: 10, AudienceEstimate: 100}, want: pace{10, 10 * second}},
		"a spread of nobody knows how many": {r: &request{SpreadSeconds: 10}, want: pace{100, 10 * second}},
		"a lower rate":                      {r: &request{Rate: 5, SpreadSeconds: 10, AudienceEstimate: 100}, want: pace{5, never}},
		"a lower spread":                    {r: &request{Rate: 50, SpreadSeconds: 10, AudienceEstimate: 100}, want: pace{10, 10 * second}},
		"a spread from its start": {
			r: &request{SpreadSeconds: 10, AudienceEstimate: 100, RequestedAtUs: second, SendAtUs: 3 * second}, now: 12 * second,
			want: pace{10, 13 * second},
		},
		"a spread that is over": {r: &request{SpreadSeconds: 10, AudienceEstimate: 100}, now: 10 * second, want: pace{0, never}},
		"a spread after a pause": {
			b: broadcast{resumedAtUS: 9 * second}, r: &request{SpreadSeconds: 10, AudienceEstimate: 100}, now: 10 * second,
			want: pace{10, 19 * second},
		},
		"a changed rate replaces both":       {b: broadcast{rate: true, ownRate: 70}, r: &request{Rate: 5, SpreadSeconds: 9}, want: pace{70, never}},
		"a changed rate of zero is no limit": {b: broadcast{rate: true}, r: &request{Rate: 5, SpreadSeconds: 9}, want: pace{0, never}},
		"a negative rate is none":            {r: &request{Rate: -3}, want: pace{0, never}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.r == nil {
				c.r = &request{}
			}
			if got := c.b.pace(c.r, c.now); got != c.want {
				t.Errorf("want %+v, got %+v", c.want, got)
			}
		})
	}
}

func TestDueAndSliceStandExtremes(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{math.SmallestNonzeroFloat64, 1e-9, 0.1, 1, 1e6, math.MaxFloat64, math.Inf(1)} {
		if got := slice(rate); got < 1 {
			t.Errorf("rate %v: a page of %d would never move", rate, got)
		}
		if got := due(1_000, 10_000, rate); got < 1_000 {
			t.Errorf("rate %v: due at %d, before it began", rate, got)
		}
	}
	if got := due(1_000_000, 50, 100); got != 1_500_000 {
		t.Errorf("50 at 100 a second: want half a second, got %d", got-1_000_000)
	}
}

func TestSlicesAreEvenAndWorthATransaction(t *testing.T) {
	t.Parallel()
	for rate, want := range map[float64]int{0: 0, -1: 0, 0.001: 1, 10: 5, 200: 100, 1_000: 100, 2_000: 100, 40_000: 2_000} {
		if got := slice(rate); got != want {
			t.Errorf("%v a second: want %d, got %d", rate, want, got)
		}
	}
}

func TestPartitionsOfOneRateTakeTurns(t *testing.T) {
	t.Parallel()
	const rate, n, now = 1_000, 100, int64(1_000_000) // a page is a tenth of a second
	for place, want := range []int64{0, 25_000, 50_000, 75_000} {
		var p paced
		p.begin(int32(place), 4, n, now)
		first := due(p.fromUS, p.taken, rate)
		if first != now+want {
			t.Errorf("partition %d: want its first page due %d later, got %d", place, want, first-now)
		}
		p.take(n, first, first+3_000)
		if got := due(p.fromUS, p.taken, rate); got != first+100_000 {
			t.Errorf("partition %d: a page that was 3 ms late: want the next one due %d after it was due, got %d", place, 100_000, got-first)
		}
		p.begin(int32(place), 4, n, now+1) // what has begun goes on
		p.take(n, first, first+2_000_000)
		if got := due(p.fromUS, p.taken, rate); got != first+2_000_000-paceCredit.Microseconds()+100_000 {
			t.Errorf("partition %d: a page that was 2 s late: want %v made up for, got the next one due after %d", place, paceCredit, got-first)
		}
	}
}

func TestMeterFollowsTheProviderAndNotTheDemand(t *testing.T) {
	t.Parallel()
	run := func(m *meter, perSecond int64, seconds int, held bool) {
		m.idle()
		now := int64(1)
		m.busy(now)
		for range seconds * 10 {
			now += 100_000
			m.count(perSecond/10, now, held)
		}
	}
	m := meter{rate: 10_000}
	run(&m, 200, 30, false)
	if m.rate != 10_000 {
		t.Errorf("small broadcasts lowered the rate to %.0f", m.rate)
	}
	run(&m, 200, 30, true)
	if m.rate < 190 || m.rate > 250 {
		t.Errorf("a slow provider: want about 200, got %.0f", m.rate)
	}
	run(&m, 50_000, 30, false)
	if m.rate < 45_000 || m.rate > 51_000 {
		t.Errorf("a fast provider: want about 50,000, got %.0f", m.rate)
	}
	m = meter{rate: 10_000}
	m.count(1_000_000, 5_000_000, true)
	if m.rate != 10_000 {
		t.Errorf("outcomes without a window: the rate became %.0f", m.rate)
	}
}

func TestPlatformFilterKnowsTheWordsOfAirNotifier(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want      []string
		transport schemas.Transport
		platform  string
		match     bool
	}{
		{[]string{"ios"}, schemas.APNS, "ios", true},
		{[]string{"ios"}, schemas.APNS, "", true}, // registered without a platform
		{[]string{"ios"}, schemas.FCM, "ios-fcm", true},
		{[]string{"ios"}, schemas.FCM, "android-fcm", false},
		{[]string{"ios"}, schemas.FCM, "iosx", false},
		{[]string{"android"}, schemas.FCM, "android-fcm", true},
		{[]string{"android"}, schemas.FCM, "android", true},
		{[]string{"android"}, schemas.APNS, "ios", false},
		{[]string{"fcm"}, schemas.FCM, "ios-fcm", true},
		{[]string{"fcm"}, schemas.APNS, "ios", false},
		{[]string{"windows", "ios-fcm"}, schemas.FCM, "ios-fcm", true},
		{[]string{"windows"}, schemas.FCM, "fcm", false},
	} {
		if got := newPlatformFilter(c.want).match(c.transport, c.platform); got != c.match {
			t.Errorf("%q on %v against %q: want %v, got %v", c.platform, c.transport, c.want, c.match, got)
		}
	}
	devices := []schemas.AudienceDevice{{Platform: "android"}, {Platform: "ios-fcm"}, {Platform: "ios-fcm"}, {Platform: "android"}}
	if got := newPlatformFilter([]string{"ios"}).apply(schemas.FCM, devices); len(got) != 2 {
		t.Errorf("want the 2 iOS devices, got %d", len(got))
	}
	if got := newPlatformFilter(nil).apply(schemas.FCM, devices); len(got) != len(devices) {
		t.Errorf("no filter: want all %d, got %d", len(devices), len(got))
	}
}

func TestEveryFinalOutcomeCountsAsFinished(t *testing.T) {
	t.Parallel()
	var c counts
	for n := range pushv1.Outcome_name {
		c.finish(pushv1.Outcome(n))
	}
	c.finish(99) // of a newer sender
	if want := int64(len(pushv1.Outcome_name) + 1); c.finished() != want {
		t.Errorf("want %d finished, got %d", want, c.finished())
	}
}

func TestALaneKnowsWhatSmallAudiencesHaveOut(t *testing.T) {
	t.Parallel()
	s := NewState(StateOptions{}, schemas.Layout{Partitions: 1})
	b := s.get(schemas.NewID())
	b.app = "app"
	b.contents = []content{{request: &request{AudienceEstimate: 500, Ranges: 1}}}
	for _, c := range []struct {
		what           string
		emitted, first int64
		end            bool
		out, express   int64
	}{
		{"small", 300, 0, false, 300, 300},
		{"some are answered", 300, 100, false, 200, 200},
		{"larger than it was said to be", 3000, 100, false, 2900, 0},
		{"all are answered", 3000, 3000, false, 0, 0},
		{"small again", 300, 0, false, 300, 300}, // as it never is: the sums go up and down
		{"ended", 300, 0, true, 0, 0},
	} {
		b.emitted[0], b.sums[0].first, b.end = c.emitted, c.first, c.end
		s.settle(b)
		if l := s.lane(laneKey{"app", 0}); l.outstanding != c.out || l.express != c.express {
			t.Errorf("%s: want %d out, %d of small audiences, got %d and %d", c.what, c.out, c.express, l.outstanding, l.express)
		}
	}
}
