package bench

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedianIsTheMiddle(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{7}, 7},
		{[]float64{9, 1}, 5},
		{[]float64{5, 100, 1}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v: want %v, got %v", c.values, c.want, got)
		}
	}
	values := []float64{3, 1, 2}
	if median(values); values[0] != 3 {
		t.Error("median has sorted its caller's values")
	}
}

func TestRowComparesMedians(t *testing.T) {
	t.Parallel()
	got := row("a/rate", "records/s", []float64{90, 30, 60}, []float64{200, 100, 120})
	want := Row{Name: "a/rate", Value: 60, Unit: "records/s", Baseline: 120, Ratio: 0.5, N: 3, Median: 60, Min: 30}
	if got != want {
		t.Errorf("want %+v, got %+v", want, got)
	}
	if got := row("a/cpu_us", "µs", []float64{4}, nil); got.Baseline != 0 || got.Ratio != 0 {
		t.Errorf("without a baseline: want no ratio, got %+v", got)
	}
}

// TestRatioIsTheMedianOfTheRoundsOwn: a slow round is slow for both sides.
func TestRatioIsTheMedianOfTheRoundsOwn(t *testing.T) {
	t.Parallel()
	one := func(seconds int, cpu time.Duration) sample {
		return sample{n: 100, wall: time.Duration(seconds) * time.Second, cpu: cpu}
	}
	d := duel{
		ours: []sample{one(2, time.Millisecond), one(20, time.Millisecond), one(4, 2*time.Millisecond)},
		bare: []sample{one(1, time.Millisecond), one(10, time.Millisecond), one(1, time.Millisecond)},
	}
	rows := d.rows("x", "record")
	for i, want := range []Row{
		{Name: "x/ratio", Value: 0.5, Unit: "ratio", Baseline: 1, Ratio: 0.5, N: 3, Median: 0.5, Min: 0.25},
		{Name: "x/rate", Value: 25, Unit: "records/s", Baseline: 100, Ratio: 0.25, N: 3, Median: 25, Min: 5},
		{Name: "x/cpu_us", Value: 10, Unit: "µs/record", Baseline: 10, Ratio: 1, N: 3, Median: 10, Min: 10},
	} {
		if rows[i] != want {
			t.Errorf("want %+v, got %+v", want, rows[i])
		}
	}
}

func TestJSONHasTheAgreedFields(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "new", "bench.json")
	if err := WriteJSON(file, []Row{row("a", "µs/push", []float64{2}, []float64{4}), {Name: "b", Void: "because"}}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"name": "a", "value": 2.0, "unit": "µs/push", "baseline": 4.0, "ratio": 0.5, "n": 1.0, "median": 2.0, "min": 2.0}
	if len(got) != 2 || len(got[0]) != len(want) {
		t.Fatalf("want two rows, the first with %d fields, got %v", len(want), got)
	}
	for key, value := range want {
		if got[0][key] != value {
			t.Errorf("%s: want %v, got %v", key, value, got[0][key])
		}
	}
	if got[1]["void"] != "because" {
		t.Errorf("want the reason of a void figure, got %v", got[1])
	}
	if err := WriteJSON(file, nil); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(text)) != "[]" {
		t.Errorf("no figures: want an empty list, got %q, %v", text, err)
	}
}

func TestTableTellsWhatIsVoid(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteTable(&b, []Row{{Name: "a", Median: 12.34, N: 5}, {Name: "b", Void: "because"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12.3", "VOID: because"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("want %q in\n%s", want, b.String())
		}
	}
}

func TestSizeNamesAreShortWhereTheyAreRound(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{1_000_000: "1M", 10_000_000: "10M", 1_500_000: "1500k", 20_000: "20k", 1234: "1234", 5: "5"} {
		if got := sizeName(n); got != want {
			t.Errorf("%d: want %s, got %s", n, want, got)
		}
	}
}
