package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// performed is a step that was played.
type performed struct {
	step

	fromUS int64         // when it began
	took   time.Duration // until all had settled
	hit    []owned       // what the senders that it disturbed owned
	bound  int64         // of the pushes that may be repeated for it
}

// perform plays a step and returns when all has settled.
func (w *world) perform(ctx context.Context, s step, l *load) (performed, error) {
	p := performed{step: s, fromUS: time.Now().UnixMicro()}
	if s.sick != "" {
		if err := w.sicken(ctx, s.sick); err != nil {
			return p, err
		}
	}
	var err error
	switch s.kind {
	case kill:
		err = w.killAll(ctx, &p, s.roles)
	case stop:
		err = w.stopFor(ctx, &p)
	case scale:
		err = w.scale(ctx, s.roles[0])
	case broker:
		err = w.loseBroker(ctx, &p)
	case store:
		err = w.away(ctx, &p, l, expectation{storeAway: true},
			func() error { _, err := w.script(ctx, "postgres.sh", "crash"); return err },
			func() error { _, err := w.script(ctx, "postgres.sh", "start"); return err })
	case engine:
		err = w.away(ctx, &p, l, expectation{engineAway: true},
			func() error { w.clickhouse.hold(); return nil },
			func() error { w.clickhouse.release(); return nil })
	case cut:
		err = w.cutOff(ctx, &p)
	}
	if err == nil {
		err = w.settle(ctx, expectation{})
	}
	for _, o := range p.hit { // also of a step that did not settle: it is judged too
		n, bounding := w.inFlight(ctx, o)
		err = errors.Join(err, bounding)
		p.bound += n
	}
	if err != nil {
		return p, err
	}
	p.took = time.Since(time.UnixMicro(p.fromUS))
	return p, w.flows(ctx, l)
}

// mark remembers what a role owns before it is disturbed.
func (p *performed) mark(ctx context.Context, w *world, name string) error {
	o, err := w.owns(ctx, name)
	if o != nil {
		p.hit = append(p.hit, o)
	}
	return err
}

// killAll kills roles at once; each begins its next life at once.
func (w *world) killAll(ctx context.Context, p *performed, roles []string) error {
	for _, name := range roles {
		if err := p.mark(ctx, w, name); err != nil {
			return err
		}
	}
	lives := map[string]int{}
	for _, name := range roles {
		lives[name], _ = w.roles[name].state()
		if !w.roles[name].kill() {
			return fmt.Errorf("%s was not running", name)
		}
	}
	return w.await(ctx, settlePatience, func(context.Context) string {
		for _, name := range roles {
			if now, _ := w.roles[name].state(); now == lives[name] {
				return name + " has not been started again"
			}
		}
		return ""
	})
}

// stopFor stops a role until its groups have lost it and its time is over, and wakes it.
func (w *world) stopFor(ctx context.Context, p *performed) error {
	name := p.roles[0]
	if err := p.mark(ctx, w, name); err != nil {
		return err
	}
	r := w.roles[name]
	if !r.signal(syscall.SIGSTOP) {
		return fmt.Errorf("%s was not running", name)
	}
	err := w.missing(ctx, name, p.seconds)
	if !r.signal(syscall.SIGCONT) {
		err = errors.Join(err, fmt.Errorf("%s ended while it was stopped", name))
	}
	return err
}

// missing waits for so many seconds at least, and until the others have settled without a role.
func (w *world) missing(ctx context.Context, name string, seconds int) error {
	if !pause(ctx, time.Duration(seconds)*time.Second) {
		return ctx.Err()
	}
	return w.await(ctx, settlePatience, func(ctx context.Context) string {
		if e := (expectation{absent: name}); w.counts[kindOf(name)] > 1 {
			return w.unstable(ctx, e) // who is alone leaves nobody behind to take over
		}
		return ""
	})
}

// scale adds a process of a role's kind, and takes it away again when all has settled.
func (w *world) scale(ctx context.Context, kind string) error {
	name := kind + "-3"
	if err := w.add(ctx, name); err != nil {
		return err
	}
	if err := w.settle(ctx, expectation{}); err != nil {
		return errors.Join(err, w.remove(name))
	}
	return w.remove(name)
}

// loseBroker kills a broker, waits until the others lead everything and are enough again, and starts it.
func (w *world) loseBroker(ctx context.Context, p *performed) error {
	var err error
	if p.hit, err = w.ownedBySenders(ctx); err != nil {
		return err
	}
	file := filepath.Join(w.Dir, "kafka", fmt.Sprintf("%d.pid", p.broker))
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("kill a broker: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("kill a broker: %s: %w", file, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill broker %d: %w", p.broker, err)
	}
	err = w.replicated(ctx, brokers-1)
	if err == nil {
		err = w.settle(ctx, expectation{})
	}
	if _, starting := w.script(ctx, "kafka.sh", "broker", fmt.Sprint(p.broker)); starting != nil {
		return errors.Join(err, starting)
	}
	if err != nil {
		return err
	}
	return w.replicated(ctx, brokers)
}

// away takes an engine away, kills meanwhile what does without it, and brings it back after its time at the earliest. Notifications must go
// on being taken, and pushes being delivered.
func (w *world) away(ctx context.Context, p *performed, l *load, e expectation, take, back func() error) error {
	answered := l.answers()
	before, err := w.delivered(ctx)
	if err != nil {
		return err
	}
	if err := take(); err != nil {
		return err
	}
	end := time.Now().Add(time.Duration(p.seconds) * time.Second)
	for _, name := range p.during {
		if err = w.killAll(ctx, p, []string{name}); err == nil {
			err = w.settle(ctx, e)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("while the %s is away: kill %s: %w", p.kind, name, err), back())
		}
	}
	if left := time.Until(end); left > 0 {
		pause(ctx, left)
	}
	answered = l.answers() - answered
	after, err := w.delivered(ctx)
	if err == nil && (after == before || answered == 0) {
		err = fmt.Errorf("while the %s was away, %d notifications were answered and %d pushes delivered", p.kind, answered, after-before)
	}
	w.say("while the %s was away, %d notifications were answered and %d pushes delivered", p.kind, answered, after-before)
	return errors.Join(err, back())
}

// cutOff cuts a role's link for a while.
func (w *world) cutOff(ctx context.Context, p *performed) error {
	name := p.roles[0]
	if err := p.mark(ctx, w, name); err != nil {
		return err
	}
	var err error
	h := w.roles[name].host
	if err := h.cut(ctx, p.link); err != nil {
		return err
	}
	if p.link == toKafka {
		err = w.missing(ctx, name, p.seconds)
	} else {
		pause(ctx, time.Duration(p.seconds)*time.Second)
	}
	return errors.Join(err, h.heal(ctx, p.link))
}

// flows waits until more is delivered and another broadcast has ended: what came to a stop without a sign would show here.
func (w *world) flows(ctx context.Context, l *load) error {
	ended := l.endedBroadcasts()
	before, err := w.delivered(ctx)
	if err != nil {
		return err
	}
	return w.await(ctx, settlePatience, func(ctx context.Context) string {
		after, err := w.delivered(ctx)
		switch {
		case err != nil:
			return err.Error()
		case after == before:
			return "nothing is delivered"
		case l.endedBroadcasts() == ended:
			return "no broadcast ends"
		}
		return ""
	})
}
