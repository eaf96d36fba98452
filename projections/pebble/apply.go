package pebble

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// Apply folds a batch: rows and offset in one Pebble batch.
func (s *Store) Apply(ctx context.Context, in schemas.Batch) error {
	facts, err := projections.Read(in)
	if err != nil {
		return err
	}
	if in.Partition < 0 || in.Partition >= s.layout.Partitions {
		return fmt.Errorf("apply %s[%d]: %w: it has %d", in.Topic, in.Partition, projections.ErrLayout, s.layout.Partitions)
	}
	e, done := s.use()
	defer done()
	s.locks[in.Partition].Lock()
	defer s.locks[in.Partition].Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.checkDisk(); err != nil {
		return err
	}
	if err := e.applyFacts(in.Partition, facts); err != nil {
		return fmt.Errorf("apply %s[%d] up to %d: %w", in.Topic, in.Partition, facts.Next, err)
	}
	return nil
}

func (e *engine) applyFacts(partition int32, facts *projections.Facts) error {
	offsetKey := appendAppliedKey(nil, partition)
	from, _, err := readUint64(e.db, offsetKey)
	if err != nil {
		return err
	}
	if facts.Next <= int64(from) {
		return nil
	}
	states, err := readStates(e.db, facts.Devices())
	if err != nil {
		return err
	}
	b := e.db.NewBatch()
	defer func() { _ = b.Close() }() // after Commit it has nothing to say
	w := writer{batch: b}
	for _, change := range facts.Fold(int64(from), states) {
		if err := w.change(&change); err != nil {
			return err
		}
	}
	if err := b.Set(offsetKey, binary.BigEndian.AppendUint64(nil, uint64(facts.Next)), nil); err != nil {
		return err
	}
	return b.Commit(e.write)
}

// readStates reads the rows of devices, which are in key order; a device without a row has the zero state.
func readStates(r pebble.Reader, devices []schemas.Device) ([]projections.State, error) {
	states := make([]projections.State, len(devices))
	iter, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{deviceSpace}, UpperBound: afterSpace(deviceSpace)})
	if err != nil {
		return nil, err
	}
	var key []byte
	for i, d := range devices {
		key = appendDeviceKey(key[:0], d)
		if !iter.SeekPrefixGE(key) { // the prefix is the whole key: the bloom filters answer for what is new
			continue
		}
		if states[i], err = parseState(iter.Value()); err != nil {
			break
		}
	}
	if closeErr := iter.Close(); err == nil { // also the iterator's own error
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	return states, nil
}

// writer puts changes into a batch and reuses its buffers.
type writer struct {
	batch      *pebble.Batch
	key, value []byte
}

func (w *writer) change(c *projections.Change) error {
	w.key = appendDeviceKey(w.key[:0], c.Device)
	var err error
	if c.After.Empty() {
		err = w.batch.Delete(w.key, nil)
	} else {
		w.value = appendState(w.value[:0], &c.After)
		err = w.batch.Set(w.key, w.value, nil)
	}
	if err != nil {
		return err
	}
	diff := projections.Diff(&c.Before, &c.After)
	shard := schemas.ShardString(c.Device.Token)
	for _, channel := range diff.Drop {
		if err := w.batch.Delete(w.audienceKey(c.Device, channel, shard), nil); err != nil {
			return err
		}
	}
	w.value = appendAudienceRow(w.value[:0], diff.Row)
	for _, channel := range diff.Put {
		if err := w.batch.Set(w.audienceKey(c.Device, channel, shard), w.value, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) audienceKey(d schemas.Device, channel string, shard uint32) []byte {
	w.key = appendAudiencePrefix(w.key[:0], d.App, channel, d.Transport)
	w.key = appendAudienceSuffix(w.key, shard, d.Token, d.Environment)
	return w.key
}

// applied reads the offsets of all partitions.
func (s *Store) applied(r pebble.Reader) ([]int64, error) { return appliedOf(r, s.layout) }

func appliedOf(r pebble.Reader, l schemas.Layout) ([]int64, error) {
	offsets := make([]int64, l.Partitions)
	var key []byte
	for p := range offsets {
		key = appendAppliedKey(key[:0], int32(p))
		v, _, err := readUint64(r, key)
		if err != nil {
			return nil, fmt.Errorf("read applied offset of partition %d: %w", p, err)
		}
		offsets[p] = int64(v)
	}
	return offsets, nil
}

// Applied is where each partition stands.
func (s *Store) Applied(ctx context.Context) ([]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e, done := s.use()
	defer done()
	return s.applied(e.db)
}

// own copies what outlives a batch or an iterator.
func own(d schemas.Device) schemas.Device {
	d.App, d.Token = strings.Clone(d.App), strings.Clone(d.Token)
	return d
}
