package ingest

import (
	"context"
	"errors"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

const (
	maxOffered = 1 << 16 // registrations that wait
	// createEvery is the least time between two batches: pushes to the same token share a lookup.
	createEvery = 20 * time.Millisecond
	retryCreate = time.Second
)

// creator appends the registrations that are missing: of tokens that a key with the right to register pushes to. It works beside the
// requests; what it must drop comes again with the next push.
type creator struct {
	server *Server
	queue  chan offer
}

type offer struct {
	hash uint64
	registration
}

func newCreator(s *Server) *creator { return &creator{s, make(chan offer, maxOffered)} }

// offer asks for a registration to be appended if it is missing. It does not wait.
func (c *creator) offer(h uint64, r registration) {
	select {
	case c.queue <- offer{h, r}:
	default:
		c.server.metrics.dropped.Inc()
	}
}

// run works until ctx ends. What is queued then is dropped: the token's next push offers it again.
func (c *creator) run(ctx context.Context) {
	for {
		batch, ok := c.gather(ctx)
		if !ok {
			return
		}
		for {
			err := c.create(ctx, batch)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return
			}
			if errors.Is(err, schemas.ErrBehind) {
				c.server.metrics.dropped.Add(float64(len(batch)))
				break
			}
			c.server.slog.Warn("missing registrations not appended, trying again", "devices", len(batch), "error", err)
			if !pauseFor(ctx, retryCreate) {
				return
			}
		}
		if !pauseFor(ctx, createEvery) {
			return
		}
	}
}

// gather waits for an offer and takes whatever else is there, each device once.
func (c *creator) gather(ctx context.Context) ([]offer, bool) {
	var batch []offer
	seen := map[uint64]bool{}
	add := func(o offer) {
		if !seen[o.hash] {
			seen[o.hash] = true
			batch = append(batch, o)
		}
	}
	select {
	case <-ctx.Done():
		return nil, false
	case o := <-c.queue:
		add(o)
	}
	for len(batch) < maxBatch {
		select {
		case o := <-c.queue:
			add(o)
			continue
		default:
		}
		break
	}
	return batch, true
}

// create looks a batch up and appends what is missing. The lookup is one with proof: a registration that the store has not
// applied yet is not missing, and to repeat it could wake a dead device.
func (c *creator) create(ctx context.Context, batch []offer) error {
	s := c.server
	devices := make([]schemas.Device, len(batch))
	for i := range batch {
		devices[i] = batch[i].device
	}
	states, err := c.lookup(ctx, devices)
	if err != nil {
		return err
	}
	missing := batch[:0:0]
	for i := range batch {
		if i < len(states) && !states[i].Known {
			missing = append(missing, batch[i])
		}
	}
	if len(missing) > 0 {
		if err := s.log.Append(ctx, func(out *schemas.Out) {
			for i := range missing {
				missing[i].say(out)
			}
		}); err != nil {
			return err
		}
		s.metrics.created.Add(float64(len(missing)))
	}
	for i := range batch {
		s.devices.learn(batch[i].hash)
	}
	return nil
}

func (c *creator) lookup(ctx context.Context, devices []schemas.Device) ([]schemas.DeviceState, error) {
	s := c.server
	ctx, cancel := context.WithTimeout(ctx, s.options.CreatePatience)
	defer cancel()
	need, err := s.log.Ends(ctx, schemas.Devices)
	if err != nil {
		return nil, err
	}
	need = only(need, devices, s.log.Layout())
	for pause := firstPause; ; pause = min(longestPause, 2*pause) {
		states, err := s.store.Lookup(ctx, devices, need)
		if !errors.Is(err, schemas.ErrBehind) || !pauseFor(ctx, pause) {
			return states, err
		}
	}
}

// only asks for the partitions of these devices.
func only(ends []int64, devices []schemas.Device, l schemas.Layout) schemas.Watermark {
	need := make(schemas.Watermark, len(ends))
	for _, d := range devices {
		if p := l.Of(d); int(p) < len(ends) {
			need[p] = ends[p]
		}
	}
	return need
}

// pauseFor waits, and reports whether ctx goes on.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
