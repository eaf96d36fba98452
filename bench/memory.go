package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders"
)

// What memory is measured over, in one process: it must be the same.
const fewPushes, manyPushes = 1_000_000, 10_000_000

func memoryRow(transport schemas.Transport, n int) string {
	return fmt.Sprintf("sender/memory/%s/%s/rss_mb", transport.Word(), sizeName(n))
}

// memory is the benchmark of a sender's memory at full speed: after a million pushes, and after ten million.
func memory(transport schemas.Transport) benchmark {
	return benchmark{
		[]string{memoryRow(transport, fewPushes), memoryRow(transport, manyPushes)},
		fmt.Sprintf("the peak of resident memory of a whole %s sender at full speed, after %s and after %s pushes", transport.Word(), sizeName(fewPushes), sizeName(manyPushes)),
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
	for n := fewPushes; n < manyPushes; n += fewPushes {
		c.marks = append(c.marks, int64(h.scaled(n)))
	}
	r, err := h.push(ctx, cluster, p, c, senders.H2Transport, h.scaled(manyPushes), 1)
	if err != nil {
		return nil, err
	}
	if len(r.Peaks) != len(c.marks) {
		return nil, fmt.Errorf("want the memory noted %d times, got %d", len(c.marks), len(r.Peaks))
	}
	peaks := make([]float64, 0, len(r.Peaks)+1)
	for _, peak := range append(r.Peaks, r.RSS) {
		peaks = append(peaks, float64(peak)/1e6)
	}
	h.say("%d pushes  %s", r.N, r.describe(0))
	h.say("MB after each %s: %.0f; of them pages of the program's file: %d", sizeName(h.scaled(fewPushes)), peaks, r.File/1e6)
	few, many := peaks[:1], peaks[len(peaks)-1:]
	return []Row{
		row(memoryRow(transport, fewPushes), "MB", few, nil),
		row(memoryRow(transport, manyPushes), "MB", many, few),
	}, nil
}
