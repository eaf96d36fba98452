package pebble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// cancelEvery is how many rows a scan reads between two looks at its context.
const cancelEvery = 4096

// Lookup reads the states of devices from one snapshot.
func (s *Store) Lookup(ctx context.Context, devices []schemas.Device, need schemas.Watermark) ([]schemas.DeviceState, error) {
	states, err := s.lookup(ctx, devices, need)
	if err != nil {
		return nil, err
	}
	out := make([]schemas.DeviceState, len(states))
	for i := range states {
		out[i] = states[i].DeviceState()
	}
	return out, nil
}

func (s *Store) lookup(ctx context.Context, devices []schemas.Device, need schemas.Watermark) (states []projections.State, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e, done := s.use()
	defer done()
	snapshot := e.db.NewSnapshot()
	defer func() { err = cmp.Or(err, snapshot.Close()) }()
	if need != nil {
		applied, err := s.applied(snapshot)
		if err != nil {
			return nil, err
		}
		if projections.Behind(s.layout, devices, need, applied) {
			return nil, schemas.ErrBehind
		}
	}
	if slices.IsSortedFunc(devices, projections.Compare) {
		return readStates(snapshot, devices)
	}
	order := make([]int, len(devices))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return projections.Compare(devices[a], devices[b]) })
	sorted := make([]schemas.Device, len(devices))
	for i, from := range order {
		sorted[i] = devices[from]
	}
	found, err := readStates(snapshot, sorted)
	if err != nil {
		return nil, fmt.Errorf("look up %d devices: %w", len(devices), err)
	}
	states = make([]projections.State, len(devices))
	for i, to := range order {
		states[to] = found[i]
	}
	return states, nil
}

// FindToken looks the token's candidates up.
func (s *Store) FindToken(ctx context.Context, app, token string, need schemas.Watermark) ([]schemas.Device, error) {
	candidates := projections.Candidates(app, token)
	states, err := s.lookup(ctx, candidates, need)
	if err != nil {
		return nil, err
	}
	var known []schemas.Device
	for i := range states {
		if states[i].Known {
			known = append(known, own(candidates[i]))
		}
	}
	return known, nil
}

// Estimate counts the first rows of each channel and transport.
func (s *Store) Estimate(ctx context.Context, app string, channels []string) (total int64, err error) {
	if err := projections.CheckAudience(app, channels); err != nil {
		return 0, err
	}
	for _, channel := range channels {
		for _, t := range schemas.Transports {
			n, err := s.sample(ctx, appendAudiencePrefix(nil, app, channel, t))
			if err != nil {
				return 0, fmt.Errorf("estimate an audience of %q: %w", app, err)
			}
			total += n
		}
	}
	return total, nil
}

func (s *Store) sample(ctx context.Context, prefix []byte) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	e, done := s.use()
	defer done()
	iter, err := e.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: shardBound(prefix, schemas.Shards)})
	if err != nil {
		return 0, err
	}
	var rows, whole int64
	var shard uint32
	ended := true
	for ok := iter.First(); ok; ok = iter.Next() {
		if at := uint32(iter.Key()[len(prefix)]); at != shard {
			shard, whole = at, rows
		}
		if rows++; rows == projections.SampleRows {
			ended = !iter.Next()
			break
		}
	}
	if err := iter.Close(); err != nil {
		return 0, err
	}
	return projections.Extrapolate(rows, whole, shard, ended), nil
}

// Checksum scans the store from one snapshot.
func (s *Store) Checksum(ctx context.Context) (total uint64, err error) {
	e, done := s.use()
	defer done()
	snapshot := e.db.NewSnapshot()
	defer func() { err = cmp.Or(err, snapshot.Close()) }()
	return checksum(ctx, snapshot)
}

func checksum(ctx context.Context, snapshot pebble.Reader) (total uint64, err error) {
	var sum projections.Sum
	err = scan(ctx, snapshot, deviceSpace, func(key, value []byte) error {
		d, ok := parseDeviceKey(key)
		state, err := parseState(value)
		if !ok || err != nil {
			return errRow
		}
		sum.Device(d, &state)
		for _, channel := range state.Channels {
			sum.Subscription(d, channel)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("sum up devices: %w", err)
	}
	err = scan(ctx, snapshot, audienceSpace, func(key, value []byte) error {
		channel, shard, d, ok := parseAudienceKey(key)
		at, platform, fine := parseAudienceRow(value)
		if !ok || !fine {
			return errRow
		}
		sum.Audience(channel, shard, d, projections.AudienceRow{RegisteredAtUS: at, Platform: string(platform)})
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("sum up audiences: %w", err)
	}
	return sum.Total(), nil
}

func scan(ctx context.Context, r pebble.Reader, space byte, row func(key, value []byte) error) (err error) {
	iter, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: afterSpace(space)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iter.Close()) }()
	n := 0
	for ok := iter.First(); ok; ok = iter.Next() {
		if n++; n%cancelEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := row(iter.Key(), iter.Value()); err != nil {
			return err
		}
	}
	return nil
}
