package eventlog

import (
	"sync"
	"testing"
)

func TestACrowdLeavesEachPartitionItsPart(t *testing.T) {
	t.Parallel()
	c := crowd{most: 100}
	c.windows.Store(4)
	c.held.Store(99)
	if !c.room(90) {
		t.Error("want room below the bound, whoever has it")
	}
	c.held.Store(100)
	if c.room(25) || !c.room(24) {
		t.Error("want a quarter of the bound for each of four, and no more")
	}
	if c.told(90) {
		t.Error("want nobody told before there is room")
	}
	c.held.Store(75)
	if !c.told(90) || c.told(90) {
		t.Error("want who waits told once a quarter has left, and once")
	}
	c.held.Store(100)
	c.room(25)
	if !c.told(12) {
		t.Error("want a partition told that has half of its part left, though others have all the rest")
	}
}

// TestNobodyWaitsInACrowdForEver has goroutines take records out while one gives more, and waits where it is told to: a waiter that is
// told of no room would wait for ever.
func TestNobodyWaitsInACrowdForEver(t *testing.T) {
	t.Parallel()
	c := crowd{most: 64}
	c.windows.Store(1)
	const total = 200_000
	records, wake := make(chan struct{}, total), make(chan struct{}, 1)
	var takers sync.WaitGroup
	for range 4 {
		takers.Go(func() {
			for range records {
				c.held.Add(-1)
				if c.told(64) {
					select {
					case wake <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	most := int64(0)
	for range total {
		for !c.room(64) {
			<-wake
		}
		most = max(most, c.held.Add(1))
		records <- struct{}{}
	}
	close(records)
	takers.Wait()
	if most > c.most {
		t.Errorf("want %d given at most, got %d", c.most, most)
	}
}
