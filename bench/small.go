package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// The figures of the benchmark of small broadcasts.
const (
	smallP99   = "p99"
	smallP50   = "p50"
	smallRatio = "p99_ratio"
)

const (
	smallName  = "broadcast/small"
	smallQuota = smallName + "/quota"
	smallFar   = smallName + onDistance
	smallKafka = smallName + onProcesses
)

const (
	smallBroadcasts = 1000
	smallDevices    = 10
	smallChannels   = 100
	smallPrefix     = "small-"
	smallEvery      = 10 * time.Millisecond
)

// small measures broadcasts to a handful of devices, 100 a second and 1,000 in all, while one goes to every device, and again while
// processes that only burn CPU use as much of it. They are of one app, which is the harder case. From the request to the last provider's
// answer, as the log has it.
func (u *running) small(ctx context.Context, name string) ([]Row, error) {
	h := u.h
	if err := u.load(ctx); err != nil {
		return nil, err
	}
	if err := u.loadSmall(ctx); err != nil {
		return nil, err
	}
	n := h.scaled(smallBroadcasts)
	var ratios, p99s, p50s, baseP99s, baseP50s []float64
	for round := range h.Rounds {
		busy, used, err := u.smallBeside(ctx, n)
		if err != nil {
			return nil, err
		}
		quiet, err := u.smallAlone(ctx, n, used)
		if err != nil {
			return nil, err
		}
		h.say("round %d  beside the large one %s; beside as much CPU (%s) %s", round+1, busy.told(), used, quiet.told())
		p99s, p50s = append(p99s, busy.quantile(0.99)), append(p50s, busy.quantile(0.5))
		baseP99s, baseP50s = append(baseP99s, quiet.quantile(0.99)), append(baseP50s, quiet.quantile(0.5))
		ratios = append(ratios, busy.quantile(0.99)/quiet.quantile(0.99))
	}
	ratio := row(name+"/"+smallRatio, "ratio", ratios, nil)
	ratio.Baseline, ratio.Ratio = 1, ratio.Value
	return []Row{ratio, row(name+"/"+smallP99, "ms", p99s, baseP99s), row(name+"/"+smallP50, "ms", p50s, baseP50s)}, nil
}

// told is a span of small broadcasts: of each figure, how much went by before its expansion.
func (s *span) told() string {
	expanded := span{waits: s.firsts}
	return fmt.Sprintf("p50 %.1f ms (%.1f until expanded) p99 %.1f ms (%.1f)", s.quantile(0.5), expanded.quantile(0.5), s.quantile(0.99), expanded.quantile(0.99))
}

func smallChannel(i int) string { return fmt.Sprintf("%s%d", smallPrefix, i%smallChannels) }

// loadSmall registers the devices of the small channels.
func (u *running) loadSmall(ctx context.Context) error {
	return u.log.Append(ctx, func(out *schemas.Out) {
		for i := range smallChannels * smallDevices {
			p := MakePhone("small", i)
			d := p.device()
			out.TokenRegistered(&pushv1.TokenRegistered{
				App: app, Transport: d.Transport, Token: p.Token, Platform: p.Platform, RegisteredAtUs: 1_780_000_000_000_000,
			})
			out.ChannelSubscribed(&pushv1.ChannelSubscribed{
				App: app, Transport: d.Transport, Token: p.Token, Channel: smallChannel(i), SubscribedAtUs: 1_780_000_000_000_000,
			})
		}
	})
}

// ask sends n small broadcasts while work goes on, and reads how long each took.
func (u *running) ask(ctx context.Context, n int, work func(ctx context.Context, asked <-chan struct{}) error) (span, error) {
	moodle := Moodle{BaseURL: u.api, App: app, Key: benchKey, Client: NewClient(64)}
	asked := make(chan struct{})
	s, err := openLoop(ctx, smallEvery, func(ctx context.Context, i int) error {
		if i >= n {
			return nil // work is about to end
		}
		if i == n-1 {
			defer close(asked)
		}
		_, err := moodle.Broadcast(ctx, smallChannel(i), "Room 12 has moved")
		return err
	}, func(ctx context.Context) error { return work(ctx, asked) })
	if err != nil {
		return s, err
	}
	s.sent = n
	return s, u.smallWaits(ctx, &s)
}

// smallBeside asks while broadcasts go to every device, one after the other until all is asked. It also returns what was used meanwhile.
func (u *running) smallBeside(ctx context.Context, n int) (s span, used cores, err error) {
	s, err = u.ask(ctx, n, func(ctx context.Context, asked <-chan struct{}) error {
		since, err := u.countCores()
		if err != nil {
			return err
		}
		counted := make(chan error, 1)
		go func() { // a broadcast may go on for long: what it uses later is not what the small ones had beside them
			select {
			case <-asked:
				var err error
				used, err = since()
				counted <- err
			case <-ctx.Done():
				counted <- ctx.Err()
			}
		}()
		for over := false; !over; {
			id, err := u.toAll(ctx)
			if err != nil {
				return err
			}
			if _, err := u.endOf(ctx, id); err != nil {
				return err
			}
			select {
			case <-asked:
				over = true
			default:
			}
		}
		return <-counted
	})
	return s, used, err
}

// smallAlone asks while as much is burnt.
func (u *running) smallAlone(ctx context.Context, n int, used cores) (span, error) {
	return u.ask(ctx, n, func(ctx context.Context, asked <-chan struct{}) error {
		return u.h.burning(ctx, used, asked)
	})
}

// smallWaits reads from the log how long each small broadcast of a span took, once all have ended.
func (u *running) smallWaits(ctx context.Context, s *span) error {
	ctx, cancel := context.WithTimeout(ctx, pipelinePatience)
	defer cancel()
	type small struct {
		requestedUS, expandedUS, lastUS int64
		finished                        int
	}
	return poll(ctx, 200*time.Millisecond, func() (bool, error) {
		all := map[schemas.ID]*small{}
		err := replay(ctx, u.log, func(r schemas.Record) error {
			if r.Type() != pushv1.EventType_EVENT_TYPE_BROADCAST_REQUESTED {
				return nil
			}
			var e pushv1.BroadcastRequested
			if err := r.Into(&e); err != nil {
				return err
			}
			if e.RequestedAtUs >= s.fromUS && e.RequestedAtUs <= s.toUS && strings.HasPrefix(e.Channels[0], smallPrefix) {
				all[schemas.IDFrom(e.BroadcastId)] = &small{requestedUS: e.RequestedAtUs}
			}
			return nil
		}, schemas.Broadcasts)
		if err != nil {
			return false, err
		}
		err = replay(ctx, u.log, func(r schemas.Record) error {
			event, err := r.Event()
			if e, ok := event.(*pushv1.CursorMoved); ok && e.PageEmitted > 0 {
				if b := all[schemas.IDFrom(e.BroadcastId)]; b != nil {
					b.expandedUS = max(b.expandedUS, e.MovedAtUs)
				}
			}
			return err
		}, schemas.Expansions)
		if err != nil {
			return false, err
		}
		var e pushv1.DeliveryFinished
		err = replay(ctx, u.log, func(r schemas.Record) error {
			if r.Type() != pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED {
				return nil
			}
			if err := r.Into(&e); err != nil {
				return err
			}
			if b := all[schemas.IDFrom(e.BroadcastId)]; b != nil {
				b.finished++
				b.lastUS = max(b.lastUS, e.FinishedAtUs)
			}
			return nil
		}, schemas.Deliveries)
		if err != nil {
			return false, err
		}
		s.waits, s.firsts = s.waits[:0], s.firsts[:0]
		for _, b := range all {
			s.firsts = append(s.firsts, float64(b.expandedUS-b.requestedUS)/1000)
			if b.finished == smallDevices {
				s.waits = append(s.waits, float64(b.lastUS-b.requestedUS)/1000)
			}
		}
		slices.Sort(s.waits)
		slices.Sort(s.firsts)
		return len(s.waits) == s.sent, nil
	})
}
