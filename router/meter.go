package router

import (
	"math"
	"time"
)

// The meter's window and memory. The window is longer than the beat of progress at full speed, and the memory about as
// long as the lead itself.
const (
	meterWindow = 250 * time.Millisecond
	meterMemory = 2 * time.Second
)

// meter estimates how fast an app's sends get their first outcomes on one transport: an exponentially weighted average over
// time in which there was something to do.
type meter struct {
	rate    float64 // a second; at first the setting
	since   int64   // Unix microseconds; zero: no window is open
	counted int64
}

// idle closes the window: time without work says nothing about speed.
func (m *meter) idle() { m.since, m.counted = 0, 0 }

// busy opens a window, where none is open.
func (m *meter) busy(nowUS int64) {
	if m.since == 0 {
		m.since = nowUS
	}
}

// count adds n first outcomes. What came in faster than the estimate raises it; what came in slower lowers it only if the
// lead was used up (held), since otherwise it was the broadcasts that were small and not the provider that was slow.
func (m *meter) count(n, nowUS int64, held bool) {
	if m.since == 0 {
		return
	}
	m.counted += n
	elapsed := time.Duration(nowUS-m.since) * time.Microsecond
	if elapsed < meterWindow {
		return
	}
	measured := float64(m.counted) / elapsed.Seconds()
	m.since, m.counted = nowUS, 0
	if held || measured > m.rate {
		m.rate += (1 - math.Exp(-elapsed.Seconds()/meterMemory.Seconds())) * (measured - m.rate)
	}
}
