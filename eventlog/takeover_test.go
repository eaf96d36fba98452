package eventlog

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestNoTakeoverBeginsWhenTheLifeIsOver(t *testing.T) {
	t.Parallel()
	for range 200 {
		life, fail := context.WithCancelCause(t.Context())
		d := &delivery{life: life, fail: fail}
		var running atomic.Int32
		var assigning sync.WaitGroup
		for range 4 { // the client, which does not know yet
			assigning.Go(func() {
				d.takeOverSoon(func() {
					running.Add(1)
					<-d.life.Done()
					running.Add(-1)
				})
			})
		}
		why := errors.New("the stage stops")
		d.endLife(why)
		if n := running.Load(); n != 0 {
			t.Fatalf("want all takeovers waited for, got %d at work", n)
		}
		assigning.Wait()
		d.takeOverSoon(func() { t.Error("want no takeover after the end") })
		d.takeovers.Wait()
		if !errors.Is(context.Cause(d.life), why) {
			t.Fatalf("want the cause kept, got %v", context.Cause(d.life))
		}
	}
}
