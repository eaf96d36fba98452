package bench

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAPartOfAWayIsToldWhereTheLogKnowsIt(t *testing.T) {
	t.Parallel()
	const at = 1_780_000_000_000_000
	whole := directTimes{requestedUS: at, askedUS: at + 1000, sendUS: at + 3000, finishedUS: at + 9000, latencyUS: 2000, recordedUS: at + 19_000}
	deleted := whole
	deleted.sendUS = 0
	for name, c := range map[string]struct {
		times directTimes
		want  [directParts][]float64
	}{
		"all stands in the log":   {whole, [directParts][]float64{{1}, {2}, {4}, {2}, {10}, {7}}},
		"the send is deleted":     {deleted, [directParts][]float64{{1}, nil, nil, {2}, {10}, {7}}},
		"brokers' clocks go back": {directTimes{requestedUS: at + 500, askedUS: at, sendUS: at, finishedUS: at + 1500}, [directParts][]float64{{0}, {0}, {1.5}, {0}, nil, {1}}},
	} {
		var s span
		s.add(&c.times)
		if diff := cmp.Diff(c.want, s.parts); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
