package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
)

// What memory is measured over: it must be the same.
const fewPushes, manyPushes = 1_000_000, 10_000_000

func memoryRow(transport schemas.Transport, n int) string {
	return fmt.Sprintf("sender/memory/%s/%s/rss_mb", transport.Word(), sizeName(n))
}

// memory is the benchmark of a sender's memory at full speed: over a million pushes, and over ten million.
func memory(transport schemas.Transport) benchmark {
	return benchmark{
		[]string{memoryRow(transport, fewPushes), memoryRow(transport, manyPushes)},
		fmt.Sprintf("the peak of resident memory of a whole %s sender at full speed, over %s and over %s pushes", transport.Word(), sizeName(fewPushes), sizeName(manyPushes)),
		func(h *harness, ctx context.Context) ([]Row, error) { return h.memory(ctx, transport) },
	}
}

func (h *harness) memory(ctx context.Context, transport schemas.Transport) (rows []Row, err error) {
	cluster, p, end, err := h.startSurroundings(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	c := cell{transport: transport, size: "200B"}
	var few float64
	for _, n := range []int{fewPushes, manyPushes} {
		r, err := h.push(ctx, cluster, p, c, senders.H2Transport, h.scaled(n), 1)
		if err != nil {
			return nil, err
		}
		h.say("%d pushes  %s", r.N, r.describe(0))
		one := row(memoryRow(transport, n), "MB", []float64{float64(r.RSS) / 1e6}, nil)
		if few == 0 {
			few = one.Value
		}
		one.Baseline, one.Ratio = few, one.Value/few
		rows = append(rows, one)
	}
	return rows, nil
}
