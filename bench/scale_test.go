package bench

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEverySizePushesAsMuch: or fixed costs would be what grows.
func TestEverySizePushesAsMuch(t *testing.T) {
	t.Parallel()
	for _, devices := range []int{10_000, 100_000, 1_000_000, 10_000_000} {
		if got := planScale(devices, scalePushes(onEmbedded), 10).pushes(); got != 10*scalePushes(onEmbedded) {
			t.Errorf("%d devices: want %d pushes, got %d", devices, 10*scalePushes(onEmbedded), got)
		}
	}
	for _, c := range []struct {
		devices, pushes, rounds int
		want                    scalePlan
	}{
		{10_000, 1_000_000, 5, scalePlan{10_000, 100, 5}},
		{1_000_000, 1_000_000, 5, scalePlan{1_000_000, 1, 5}},
		{10_000_000, 1_000_000, 5, scalePlan{10_000_000, 1, 1}}, // whole broadcasts alone
		{10_000_000, scalePushes(onReal), 5, scalePlan{10_000_000, 1, 5}},
		{100_000, scalePushes(onReal), 5, scalePlan{100_000, 100, 5}},
		{64, 100, 1, scalePlan{64, 1, 1}},
	} {
		if diff := cmp.Diff(c.want, planScale(c.devices, c.pushes, c.rounds), cmp.AllowUnexported(scalePlan{})); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c, diff)
		}
	}
}

// TestSizesAreComparedWithTheSmallest of the same engine, figure by figure.
func TestSizesAreComparedWithTheSmallest(t *testing.T) {
	t.Parallel()
	rows := []Row{
		{Name: "scale/embedded/10k/cpu_us", Value: 10},
		{Name: "scale/embedded/1M/cpu_us", Value: 11},
		{Name: "scale/embedded/10k/up/rss_mb", Value: 100},
		{Name: "scale/cluster/100k/cpu_us", Void: "none"},
		{Name: "scale/cluster/1M/cpu_us", Value: 50},
		{Name: "scale/cluster/10M/cpu_us", Value: 60},
		{Name: "router/kfake/cpu_us", Value: 1},
	}
	want := []Row{
		{Name: "scale/embedded/10k/cpu_us", Value: 10, Baseline: 10, Ratio: 1},
		{Name: "scale/embedded/1M/cpu_us", Value: 11, Baseline: 10, Ratio: 1.1},
		{Name: "scale/embedded/10k/up/rss_mb", Value: 100, Baseline: 100, Ratio: 1},
		{Name: "scale/cluster/100k/cpu_us", Void: "none"},
		{Name: "scale/cluster/1M/cpu_us", Value: 50, Baseline: 50, Ratio: 1},
		{Name: "scale/cluster/10M/cpu_us", Value: 60, Baseline: 50, Ratio: 1.2},
		{Name: "router/kfake/cpu_us", Value: 1},
	}
	compareSizes(rows)
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
