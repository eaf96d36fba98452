package simulator

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Latency is how long an answer takes. The zero value answers at once. Its text form, in flags, YAML and JSON, is one of
//
//	0
//	20ms                  always
//	uniform:10ms,50ms     from, to
//	lognormal:20ms,80ms   median, 99th percentile
//	bimodal:20ms,2s,0.01  usually, and for that share of pushes
type Latency struct {
	kind  latencyKind
	a, b  time.Duration
	share float64 // bimodal: of b
}

type latencyKind uint8

const (
	latencyConst latencyKind = iota
	latencyUniform
	latencyLogNormal
	latencyBimodal
)

// maxLatency keeps the far tail of a log-normal distribution within what a client waits for.
const maxLatency = time.Minute

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// ParseLatency reads the text form.
func ParseLatency(s string) (Latency, error) {
	var l Latency
	return l, l.UnmarshalText([]byte(s))
}

// UnmarshalText reads the text form.
func (l *Latency) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	bad := fmt.Errorf("%q is no latency: want 0, 20ms, uniform:10ms,50ms, lognormal:20ms,80ms (median and 99th percentile) or bimodal:20ms,2s,0.01", s)
	kind, rest, named := strings.Cut(s, ":")
	if !named {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 || d > maxLatency {
			return bad
		}
		*l = Latency{kind: latencyConst, a: d}
		return nil
	}
	first, second, ok := strings.Cut(rest, ",")
	share := 0.0
	if kind == "bimodal" {
		var text string
		second, text, _ = strings.Cut(second, ",")
		v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(v >= 0 && v <= 1) {
			return bad
		}
		share = v
	}
	a, errA := time.ParseDuration(strings.TrimSpace(first))
	b, errB := time.ParseDuration(strings.TrimSpace(second))
	if !ok || errA != nil || errB != nil || a < 0 || b < a || b > maxLatency {
		return bad
	}
	switch kind {
	case "uniform":
		*l = Latency{kind: latencyUniform, a: a, b: b}
	case "lognormal":
		if a == 0 {
			return bad
		}
		*l = Latency{kind: latencyLogNormal, a: a, b: b}
	case "bimodal":
		*l = Latency{kind: latencyBimodal, a: a, b: b, share: share}
	default:
		return bad
	}
	return nil
}

// MarshalText writes the text form.
func (l Latency) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// String is the text form.
func (l Latency) String() string {
	switch l.kind {
	case latencyUniform:
		return "uniform:" + l.a.String() + "," + l.b.String()
	case latencyLogNormal:
		return "lognormal:" + l.a.String() + "," + l.b.String()
	case latencyBimodal:
		return "bimodal:" + l.a.String() + "," + l.b.String() + "," + strconv.FormatFloat(l.share, 'g', -1, 64)
	case latencyConst:
	}
	return l.a.String()
}

// Of is the latency that the hash picks: the same for the same hash.
func (l Latency) Of(hash uint64) time.Duration {
	switch l.kind {
	case latencyUniform:
		return l.a + time.Duration(unit(hash)*float64(l.b-l.a))
	case latencyLogNormal:
		// Box and Muller (1958): two uniform numbers make a normal one.
		u, v := 1-unit(hash), unit(mix(hash))
		z := math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
		sigma := math.Log(float64(l.b)/float64(l.a)) / z99
		return min(time.Duration(float64(l.a)*math.Exp(sigma*z)), maxLatency)
	case latencyBimodal:
		if unit(hash) < l.share {
			return l.b
		}
	case latencyConst:
	}
	return l.a
}

// unit maps a hash to [0, 1).
func unit(hash uint64) float64 { return float64(hash>>11) / (1 << 53) }

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a fresh hash from a hash.
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
