package router

import "github.com/campanile-push/campanile/schemas"

// watcher wakes one Drive when the state has changed.
type watcher struct {
	signal chan struct{} // holds one signal; a second one says nothing new
	// touched are the broadcasts of partition that changed since the watcher looked; nil: it does not ask.
	touched   map[schemas.ID]struct{}
	partition int32
}

// watch returns a watcher of every change.
func (s *State) watch() *watcher {
	w := &watcher{signal: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return w
}

// watchPartition returns a watcher that also gathers which broadcasts of a partition of broadcasts changed: at first all.
func (s *State) watchPartition(partition int32) *watcher {
	w := &watcher{signal: make(chan struct{}, 1), touched: map[schemas.ID]struct{}{}, partition: partition}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, b := range s.broadcasts {
		if b.partition == partition {
			w.touched[id] = struct{}{}
		}
	}
	s.watchers[w] = struct{}{}
	return w
}

func (s *State) unwatch(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, w)
}

// tell wakes the watchers.
func (s *State) tell(b *broadcast) {
	for w := range s.watchers {
		if w.touched != nil {
			if b.partition != w.partition {
				continue
			}
			w.touched[b.id] = struct{}{}
		}
		select {
		case w.signal <- struct{}{}:
		default:
		}
	}
}
