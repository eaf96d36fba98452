package senders

import (
	"testing"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

func testPolicy() policy {
	return policy{tiers: [schemas.Tiers]int64{10 * second, 60 * second, 900 * second, 30 * second}, maxAge: 24 * 3600 * second}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	const now = 1_000_000 * int64(1e6)
	id := schemas.ID{1, 2, 3}
	base := attempt{id: id, made: 1, beganUS: now - second, registeredUS: now - 2*second, deadlineUS: now + 3600*second}
	with := func(change func(a *attempt)) attempt {
		a := base
		change(&a)
		return a
	}
	is := func(o schemas.Outcome, actions Action) Result {
		return Result{Verdict: Verdict{o, actions}, Reason: "R"}
	}
	late := with(func(a *attempt) { a.registeredUS = now - 700*second })
	for _, c := range []struct {
		name  string
		a     attempt
		r     Result
		doubt string
		want  step
	}{
		{"accepted", base, Result{Verdict: Verdict{accepted, 0}}, "", step{fate: finish, outcome: accepted}},
		{"rejected", base, is(rejected, 0), "", step{fate: finish, outcome: rejected, reason: "R"}},
		{
			"dead, no timestamp", base, is(tokenInvalid, Invalidate), "",
			step{fate: finish, outcome: tokenInvalid, reason: "R", asOfUS: base.registeredUS},
		},
		{
			"dead before a registration that is minutes old", base, stamped(now - 5*second), "",
			step{fate: finish, outcome: tokenInvalid, reason: "R", asOfUS: now - 5*second},
		},
		{
			"dead before a registration that has settled", late, stamped(now - 5000*second), "",
			step{fate: finish, outcome: tokenInvalid, reason: "R", asOfUS: late.registeredUS},
		},
		{
			"dead since, registration settled", late, stamped(now - 5*second), "",
			step{fate: finish, outcome: tokenInvalid, reason: "R", asOfUS: now - 5*second},
		},
		{"dead in the future", base, stamped(now + 99*second), "", step{fate: finish, outcome: tokenInvalid, reason: "R", asOfUS: now}},
		{
			"bad token, believed", base, is(tokenInvalid, Invalidate|Suspect), "",
			step{fate: finish, outcome: tokenInvalid, reason: "R", asOfUS: base.registeredUS},
		},
		{
			"bad token, doubted", base, is(tokenInvalid, Invalidate|Suspect), "token_flood",
			step{fate: retry, outcome: misconfigured, reason: "token_flood", tier: 4, notBeforeUS: now + 30*second},
		},
		{
			"unregistered is believed even so", base, is(tokenInvalid, Invalidate), "token_flood",
			step{fate: finish, outcome: tokenInvalid, reason: "R", asOfUS: base.registeredUS},
		},
		{
			"refused credentials", base, is(misconfigured, Park), "",
			step{fate: retry, outcome: misconfigured, reason: "R", tier: 4, notBeforeUS: now + 30*second},
		},
		{
			"refused credentials, near its end", with(func(a *attempt) { a.deadlineUS = now + second }), is(misconfigured, Park), "",
			step{fate: retry, outcome: misconfigured, reason: "R", tier: 4, notBeforeUS: now + second},
		},
		{
			"refused credentials, at its end", with(func(a *attempt) { a.deadlineUS = now }), is(misconfigured, Park), "",
			step{fate: finish, outcome: expired, reason: "R"},
		},
		{
			"unavailable", base, is(unavailable, 0), "",
			step{fate: retry, outcome: unavailable, reason: "R", tier: 1, notBeforeUS: now + 10*second - jitter(id, 1, 10*second/4)},
		},
		{
			"unavailable again", with(func(a *attempt) { a.made = 2 }), is(unavailable, 0), "",
			step{fate: retry, outcome: unavailable, reason: "R", tier: 2, notBeforeUS: now + 60*second - jitter(id, 2, 60*second/4)},
		},
		{
			"unavailable for ever", with(func(a *attempt) { a.made = 9 }), is(unavailable, 0), "",
			step{fate: retry, outcome: unavailable, reason: "R", tier: 3, notBeforeUS: now + 900*second - jitter(id, 9, 900*second/4)},
		},
		{
			"Retry-After within the tier's delay", base, waits(throttled, 10*time.Second), "",
			step{fate: retry, outcome: throttled, reason: "R", tier: 1, notBeforeUS: now + 10*second},
		},
		{
			"Retry-After beyond it", base, waits(throttled, 50*time.Second), "",
			step{fate: retry, outcome: throttled, reason: "R", tier: 2, notBeforeUS: now + 50*second},
		},
		{
			"Retry-After beyond every tier", base, waits(unavailable, 30*time.Minute), "",
			step{fate: retry, outcome: unavailable, reason: "R", tier: 3, notBeforeUS: now + 1800*second},
		},
		{"Retry-After beyond its end", base, waits(unavailable, 2*time.Hour), "", step{fate: finish, outcome: expired, reason: "R"}},
		{
			"a project's quota", base, is(throttled, SlowDown), "",
			step{fate: retry, outcome: throttled, reason: "R", tier: 2, notBeforeUS: now + 60*second},
		},
		{
			"one transport's credentials at FCM", base, is(misconfigured, 0), "",
			step{fate: retry, outcome: misconfigured, reason: "R", tier: 1, notBeforeUS: now + 10*second - jitter(id, 1, 10*second/4)},
		},
	} {
		if got := decide(c.a, c.r, now, testPolicy(), c.doubt); got != c.want {
			t.Errorf("%s: want %+v, got %+v", c.name, c.want, got)
		}
	}
}

func stamped(us int64) Result {
	return Result{Verdict: Verdict{tokenInvalid, Invalidate}, Reason: "R", TimestampUS: us}
}

func waits(o schemas.Outcome, d time.Duration) Result {
	return Result{Verdict: Verdict{o, 0}, Reason: "R", RetryAfter: d}
}

func TestJitterIsTheSameForARepeatAndSpreadOverSends(t *testing.T) {
	t.Parallel()
	seen := map[int64]bool{}
	for range 1000 {
		id := schemas.NewID()
		n := jitter(id, 1, 1000)
		if n != jitter(id, 1, 1000) || n < 0 || n >= 1000 {
			t.Fatalf("want the same number below 1000 twice, got %d", n)
		}
		seen[n/100] = true
	}
	if len(seen) != 10 {
		t.Errorf("want every tenth of the width drawn, got %d of 10", len(seen))
	}
	if jitter(schemas.ID{}, 1, 0) != 0 {
		t.Error("want no jitter in no width")
	}
}

func TestMemoryForgetsByTimeAndSize(t *testing.T) {
	t.Parallel()
	m := newMemory(3)
	id := func(n byte) schemas.ID { return schemas.ID{15: n + 1} }
	start := 1000 * int64(memoryTurn/time.Microsecond)
	if !m.add(id(1), start) || m.add(id(1), start) || !m.has(id(1)) {
		t.Error("want new once")
	}
	m.forget(id(1))
	if !m.add(id(1), start) {
		t.Error("want new after forget")
	}
	if m.add(id(1), start+memoryTurn.Microseconds()+1) {
		t.Error("want remembered after one turn")
	}
	if !m.add(id(1), start+3*memoryTurn.Microseconds()+3) {
		t.Error("want forgotten after two")
	}
	for n := range byte(100) {
		m.add(id(n), start+3*memoryTurn.Microseconds()+4)
	}
	if got := m.young.n + m.old.n; got > 6 {
		t.Errorf("want at most two generations of 3, got %d", got)
	}
}

func TestHopsOfASendDiffer(t *testing.T) {
	t.Parallel()
	id := schemas.NewID()
	seen := map[schemas.ID]bool{}
	for _, h := range []schemas.ID{
		hop(id, 1, nil), hop(id, 2, nil), hop(id, 1, &source{0, 0}), hop(id, 1, &source{0, 1}), hop(id, 1, &source{1, 0}), hop(id, 2, &source{1, 0}),
	} {
		if seen[h] {
			t.Errorf("want six different hops, got %x twice", h)
		}
		seen[h] = true
	}
	if again := hop(id, 1, &source{1, 5}); again != hop(id, 1, &source{1, 5}) {
		t.Error("want the same hop twice")
	}
}
