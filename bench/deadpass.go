package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/simulator"
)

// The figures of dead tokens: the share of 4xx among the answers of a provider.
const (
	deadFirst  = "dead/first_pass/4xx_share"
	deadSecond = "dead/second_pass/4xx_share"
)

// dead broadcasts twice to an audience of which a tenth of the tokens are dead, in the words of both providers' tables.
func (h *harness) dead(ctx context.Context) (rows []Row, err error) {
	devices := h.Devices
	h.Devices = h.scaled(100_000)
	defer func() { h.Devices = devices }()
	up, end, err := h.startPipeline(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := up.load(ctx); err != nil {
		return nil, err
	}
	mix := simulator.Mix{"dead": 0.07, "bad_token": 0.02, "mismatch": 0.01}
	if err := up.p.client.SetScenario(ctx, simulator.Scenario{Seed: 1, Mix: mix}); err != nil {
		return nil, err
	}
	var shares [2]float64
	for pass := range shares {
		if shares[pass], err = up.deadPass(ctx); err != nil {
			return nil, fmt.Errorf("pass %d: %w", pass+1, err)
		}
		h.say("pass %d  %d devices, 10 %% of the tokens dead: %.3f %% of the answers were 4xx", pass+1, h.Devices, 100*shares[pass])
	}
	second := row(deadSecond, "ratio", shares[1:], shares[:1])
	return []Row{row(deadFirst, "ratio", shares[:1], nil), second}, nil
}

// deadPass broadcasts to all, waits until every stage has drawn its consequences, and returns the share of 4xx.
func (u *runningUp) deadPass(ctx context.Context) (float64, error) {
	if err := u.p.client.Reset(ctx, "stats"); err != nil {
		return 0, err
	}
	id, err := u.toAll(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := u.endOf(ctx, id); err != nil {
		return 0, err
	}
	if err := u.settled(ctx, schemas.GroupProjector); err != nil {
		return 0, err
	}
	stats, err := u.p.client.Stats(ctx)
	if err != nil {
		return 0, err
	}
	var refused, all int64
	for _, a := range stats.Answers {
		all += a.Count
		if a.Status >= http.StatusBadRequest && a.Status < http.StatusInternalServerError {
			refused += a.Count
		}
	}
	if all < int64(u.h.Devices)*8/10 {
		return 0, fmt.Errorf("want a push to each live device of %d, got %d", u.h.Devices, all)
	}
	return float64(refused) / float64(all), nil
}
