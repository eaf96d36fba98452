package eventlog

import "testing"

func TestFenceKnowsWhoOwnedWhatAtAnOffset(t *testing.T) {
	t.Parallel()
	var f fence
	f.begin(generations{3, 0, 5})
	for _, c := range []change{{10, 0, 4}, {20, 1, 6}, {20, 1, 9}, {15, 2, 9}, {30, 0, 2}, {40, 0, 7}, {50, 99, 9}} {
		f.add(c)
	}
	for _, test := range []struct {
		offset int64
		want   generations
	}{
		{0, generations{3, 0, 5}},
		{10, generations{3, 0, 5}}, // the change itself is not behind itself
		{11, generations{4, 0, 5}},
		{20, generations{4, 0, 5}},
		{21, generations{4, 6, 5}},
		{31, generations{4, 6, 5}}, // an older owner who was slow to say so
		{41, generations{7, 6, 5}},
		{1000, generations{7, 6, 5}},
	} {
		if got := f.at(test.offset); got != test.want {
			t.Errorf("at %d: want %v, got %v", test.offset, test.want, got)
		}
	}
	for _, test := range []struct {
		offset     int64
		tier       uint32
		generation int64
		want       bool
	}{
		{12, 0, 3, true}, {12, 0, 4, false}, {9, 0, 3, false}, {25, 1, 5, true}, {25, 1, 6, false}, {25, 99, 0, false},
	} {
		if got := f.voids(test.offset, test.tier, test.generation); got != test.want {
			t.Errorf("%+v: got %t", test, got)
		}
	}
	for _, below := range []int64{10, 21, 21, 35, 100} {
		kept := f.at(below)
		last := f.at(1000)
		f.forget(below)
		if f.at(below) != kept || f.before != kept || f.at(1000) != last {
			t.Errorf("forgetting what is below %d changed what stands there: want %v, got %v", below, kept, f.at(below))
		}
	}
	if len(f.changes) != 0 {
		t.Errorf("want no change kept, got %v", f.changes)
	}
}
