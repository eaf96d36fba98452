package eventlog

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// heard knows when the group's coordinator last answered a heartbeat: nobody else can own our partitions before a session
// has passed since that heartbeat was sent.
type heard struct {
	started time.Time
	at      atomic.Int64 // ns since started; of the sending of the last answered one
	silence time.Duration
}

func newHeard(silence time.Duration) *heard { return &heard{started: time.Now(), silence: silence} }

// lately reports whether the last answered heartbeat is younger than the silence that is allowed.
func (h *heard) lately() bool {
	return time.Since(h.started)-time.Duration(h.at.Load()) < h.silence
}

// OnBrokerE2E implements kgo.HookBrokerE2E. A heartbeat's answer that ends the membership is followed by the loss of the
// partitions; a sync begins a membership.
func (h *heard) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if kmsg.Key(key) != kmsg.Heartbeat && kmsg.Key(key) != kmsg.SyncGroup && kmsg.Key(key) != kmsg.ConsumerGroupHeartbeat || e2e.Err() != nil {
		return
	}
	sent := int64(time.Since(h.started) - e2e.TimeToRead - e2e.ReadWait - e2e.TimeToWrite)
	for {
		last := h.at.Load()
		if last >= sent || h.at.CompareAndSwap(last, sent) {
			return
		}
	}
}
