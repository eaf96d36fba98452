package simulator

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Push is a valid push.
type Push struct {
	TimeUS      int64    `json:"time_us"` // Unix microseconds
	Provider    Provider `json:"provider"`
	Environment string   `json:"environment,omitempty"` // APNs
	App         string   `json:"app"`                   // APNs topic or FCM project
	Token       string   `json:"token"`                 // APNs: lower-case hex; FCM: "/topics/…" or a condition where it went there
	ID          string   `json:"id"`                    // see the package's documentation
	PushType    string   `json:"push_type,omitempty"`
	Priority    string   `json:"priority,omitempty"`
	CollapseID  string   `json:"collapse_id,omitempty"`
	Expiration  *int64   `json:"expiration,omitempty"` // APNs: Unix seconds; FCM: seconds to live
	FanOut      int      `json:"fan_out,omitempty"`    // FCM, to a topic: tokens subscribed at the time
	Body        []byte   `json:"body"`

	id        [16]byte
	tokenHash uint64
	conn      uint64 // number of its connection
}

// answer is the fate of a push. The zero value accepts it.
type answer struct {
	reason     string // "" or a reason of the push's provider
	deadMS     int64  // 410: Unix milliseconds
	retryAfter time.Duration
	asDate     bool
	fault      Fault
	pause      time.Duration // of the fault; 0: its default
	delay      time.Duration
}

// accepted reports whether the push is recorded.
func (a *answer) accepted() bool {
	return a.reason == "" && !a.fault.spares()
}

// rule is a Rule in force.
type rule struct {
	Rule
	from, until time.Time // until is zero where there is no end
	seen, used  atomic.Int64
	salt        uint64 // tells the attempts of two rules apart
}

func newRule(r Rule, now time.Time, salt uint64) *rule {
	live := &rule{Rule: r, from: now.Add(r.After.D()), salt: salt}
	if r.For > 0 {
		live.until = live.from.Add(r.For.D())
	}
	return live
}

// matches tells whether the rule is about such a push at all.
func (r *rule) matches(p *Push, seed uint64, now time.Time) bool {
	switch {
	case now.Before(r.from), !r.until.IsZero() && !now.Before(r.until):
		return false
	case r.Provider != "" && r.Provider != p.Provider:
		return false
	case r.Environment != "" && r.Environment != p.Environment:
		return false
	case r.App != "" && r.App != p.App:
		return false
	case !strings.HasPrefix(p.Token, r.TokenPrefix):
		return false
	case r.Share > 0 && unit(mix(tokenSeed(seed, p)^r.salt)) >= r.Share:
		return false
	case r.Reason != "" && !reasonKnownAt(p.Provider, r.Reason):
		return false
	}
	return true
}

// turn counts a push that matches, and reports whether it is one of each Every.
func (r *rule) turn() bool {
	n := r.seen.Add(1)
	return r.Every <= 1 || n%r.Every == 0
}

// within counts a push that the rule takes, and reports whether it is one of the first Limit.
func (r *rule) within() bool {
	return r.Limit == 0 || r.used.Add(1) <= r.Limit
}

// tokenSeed is what every choice about a token begins with.
func tokenSeed(seed uint64, p *Push) uint64 {
	if p.Provider == FCM {
		seed = mix(seed)
	}
	return mix(seed ^ p.tokenHash)
}

// pushSeed is what every choice about one push begins with.
func pushSeed(seed uint64, p *Push) uint64 {
	return tokenSeed(seed, p) ^ xxhash.Sum64(p.id[:])
}

// verdict is a reason and for how many attempts of a notification it holds; 0: without end.
type verdict struct {
	reason string
	times  int
}

// marked reads the marker in a token; false where there is none.
func marked(p *Push) (verdict, bool) {
	if p.Provider == FCM {
		rest, ok := strings.CutPrefix(p.Token, "sim:")
		name, _, ended := strings.Cut(rest, ":")
		if !ok || !ended {
			return verdict{}, false
		}
		name, count, _ := strings.Cut(name, "*")
		reason, known := reasonAt(FCM, name)
		times, _ := strconv.Atoi(count) // no number: without end, as 0
		return verdict{reason, max(times, 0)}, known
	}
	rest, ok := strings.CutPrefix(p.Token, apnsMarker)
	if !ok || len(rest) < 6 {
		return verdict{}, false
	}
	reason, known := apnsMarkers[rest[:4]]
	times, _ := strconv.ParseUint(rest[4:6], 16, 8)
	return verdict{reason, int(times)}, known
}

// mixShare is one reason of a Mix, in a fixed order.
type mixShare struct {
	name  string
	share float64
}

func sharesOf(m Mix) []mixShare {
	shares := make([]mixShare, 0, len(m))
	for _, name := range sortedKeys(m) {
		shares = append(shares, mixShare{name, m[name]})
	}
	return shares
}

// mixed is what the mix says of a token.
func mixed(shares []mixShare, seed uint64, p *Push) verdict {
	if len(shares) == 0 {
		return verdict{}
	}
	h := tokenSeed(seed, p)
	at := unit(h)
	for _, m := range shares {
		if at >= m.share {
			at -= m.share
			continue
		}
		reason, known := reasonAt(p.Provider, m.name)
		switch {
		case !known:
			return verdict{}
		case transient(m.name):
			return verdict{reason, 1 + int(mix(h)%2)}
		}
		return verdict{reason, 0}
	}
	return verdict{}
}

// attemptKey identifies a notification to a token under one rule; salt 0 is the mix and the markers.
func attemptKey(p *Push, salt uint64) uint64 {
	var b [33]byte
	b[0] = p.Provider[0]
	binary.LittleEndian.PutUint64(b[1:], p.tokenHash)
	copy(b[9:], p.id[:])
	binary.LittleEndian.PutUint64(b[25:], salt)
	return xxhash.Sum64(b[:])
}
