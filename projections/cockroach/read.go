package cockroach

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// Lookup reads the states of devices from one snapshot.
func (s *Store) Lookup(ctx context.Context, devices []schemas.Device, need schemas.Watermark) ([]schemas.DeviceState, error) {
	found, err := s.lookup(ctx, devices, need)
	if err != nil {
		return nil, err
	}
	out := make([]schemas.DeviceState, len(found))
	for i := range found {
		out[i] = found[i].DeviceState()
	}
	return out, nil
}

func (s *Store) lookup(ctx context.Context, devices []schemas.Device, need schemas.Watermark) (found []projections.State, err error) {
	err = s.read(ctx, func(tx pgx.Tx, t tables) error {
		if need != nil {
			applied, err := s.applied(ctx, tx, t)
			if err != nil {
				return err
			}
			if projections.Behind(s.layout, devices, need, applied) {
				return schemas.ErrBehind
			}
		}
		found, err = t.states(ctx, tx, devices)
		return err
	})
	if errors.Is(err, schemas.ErrBehind) {
		return nil, schemas.ErrBehind
	}
	if err != nil {
		return nil, fmt.Errorf("look up %d devices: %w", len(devices), err)
	}
	return found, nil
}

// FindToken looks the token's candidates up.
func (s *Store) FindToken(ctx context.Context, app, token string, need schemas.Watermark) ([]schemas.Device, error) {
	candidates := projections.Candidates(app, token)
	found, err := s.lookup(ctx, candidates, need)
	if err != nil {
		return nil, err
	}
	var known []schemas.Device
	for i := range found {
		if found[i].Known {
			known = append(known, candidates[i])
		}
	}
	return known, nil
}

// Estimate counts the first rows of each channel and transport.
func (s *Store) Estimate(ctx context.Context, app string, channels []string) (total int64, err error) {
	if err := projections.CheckAudience(app, channels); err != nil {
		return 0, err
	}
	err = s.read(ctx, func(tx pgx.Tx, t tables) error {
		total = 0 // fn may run again
		for _, channel := range channels {
			for _, transport := range schemas.Transports {
				n, err := t.sample(ctx, tx, app, channel, transport)
				if err != nil {
					return err
				}
				total += n
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("estimate an audience of %q: %w", app, err)
	}
	return total, nil
}

// sample asks for one row more than the sample, to see whether it is all.
func (t tables) sample(ctx context.Context, tx pgx.Tx, app, channel string, transport schemas.Transport) (int64, error) {
	found, err := tx.Query(ctx, t.sql(sqlSample), app, channel, int64(transport), int64(projections.SampleRows+1))
	if err != nil {
		return 0, err
	}
	var count, number, total, whole, shard int64
	_, err = pgx.ForEachRow(found, []any{&number, &count}, func() error {
		if total < projections.SampleRows { // else the group is the row too many alone
			shard, whole = number, total
		}
		total += count
		return nil
	})
	if err != nil {
		return 0, err
	}
	return projections.Extrapolate(min(total, projections.SampleRows), whole, uint32(shard), total <= projections.SampleRows), nil
}

// Checksum reads all three tables from one snapshot.
func (s *Store) Checksum(ctx context.Context) (total uint64, err error) {
	err = s.read(ctx, func(tx pgx.Tx, t tables) error {
		total, err = t.checksum(ctx, tx)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sum up the store: %w", err)
	}
	return total, nil
}

func (t tables) checksum(ctx context.Context, tx pgx.Tx) (uint64, error) {
	var sum projections.Sum
	for _, table := range []func(context.Context, pgx.Tx, *projections.Sum) error{t.sumDevices, t.sumSubscriptions, t.sumAudience} {
		if err := table(ctx, tx, &sum); err != nil {
			return 0, err
		}
	}
	return sum.Total(), nil
}

// key is a device's columns as they are scanned.
type key struct {
	app                    string
	transport, environment int32
	token                  []byte
}

func (k *key) fields(more ...any) []any {
	return append([]any{&k.app, &k.transport, &k.environment, &k.token}, more...)
}

func (k *key) device() schemas.Device {
	return schemas.Device{App: k.app, Transport: schemas.Transport(k.transport), Environment: schemas.Environment(k.environment), Token: string(k.token)}
}

func (t tables) sumDevices(ctx context.Context, tx pgx.Tx, sum *projections.Sum) error {
	found, err := tx.Query(ctx, t.sql(sqlAllDevices))
	if err != nil {
		return err
	}
	var k key
	var s projections.State
	r := &s.Registration
	_, err = pgx.ForEachRow(found, k.fields(&s.Known, &r.AtUS, &r.Platform, &r.AppVersion, &r.Locale, &r.TimeZone, &r.UserID, &r.KeyID, &s.Invalidated, &s.AsOfUS),
		func() error { sum.Device(k.device(), &s); return nil })
	return err
}

func (t tables) sumSubscriptions(ctx context.Context, tx pgx.Tx, sum *projections.Sum) error {
	found, err := tx.Query(ctx, t.sql(sqlAllSubscriptions))
	if err != nil {
		return err
	}
	var k key
	var channel string
	_, err = pgx.ForEachRow(found, k.fields(&channel), func() error { sum.Subscription(k.device(), channel); return nil })
	return err
}

func (t tables) sumAudience(ctx context.Context, tx pgx.Tx, sum *projections.Sum) error {
	found, err := tx.Query(ctx, t.sql(sqlAllAudience))
	if err != nil {
		return err
	}
	var k key
	var channel string
	var shard uint32
	var row projections.AudienceRow
	_, err = pgx.ForEachRow(found, k.fields(&channel, &shard, &row.RegisteredAtUS, &row.Platform), func() error {
		sum.Audience(channel, shard, k.device(), row)
		return nil
	})
	return err
}
