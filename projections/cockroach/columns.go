package cockroach

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// deviceColumns are devices as unnest takes them: an array for each column.
type deviceColumns struct {
	apps         []string
	transports   []int64
	environments []int64
	tokens       [][]byte
}

func (c *deviceColumns) add(d schemas.Device) {
	c.apps = append(c.apps, d.App)
	c.transports = append(c.transports, int64(d.Transport))
	c.environments = append(c.environments, int64(d.Environment))
	c.tokens = append(c.tokens, []byte(d.Token))
}

func (c *deviceColumns) args(more ...any) []any {
	return append([]any{c.apps, c.transports, c.environments, c.tokens}, more...)
}

// stateColumns are rows of devices.
type stateColumns struct {
	deviceColumns
	known, invalidated                                       []bool
	registered, asOf                                         []int64
	platforms, versions, locales, timeZones, userIDs, keyIDs []string
}

func (c *stateColumns) add(d schemas.Device, s *projections.State) {
	c.deviceColumns.add(d)
	r := &s.Registration
	c.known, c.invalidated = append(c.known, s.Known), append(c.invalidated, s.Invalidated)
	c.registered, c.asOf = append(c.registered, r.AtUS), append(c.asOf, s.AsOfUS)
	c.platforms, c.versions = append(c.platforms, r.Platform), append(c.versions, r.AppVersion)
	c.locales, c.timeZones = append(c.locales, r.Locale), append(c.timeZones, r.TimeZone)
	c.userIDs, c.keyIDs = append(c.userIDs, r.UserID), append(c.keyIDs, r.KeyID)
}

// channelColumns are rows of subscriptions, or keys of the audience.
type channelColumns struct {
	deviceColumns
	channels []string
	shards   []int64 // the audience's alone
}

// audienceColumns are rows of the audience.
type audienceColumns struct {
	channelColumns
	registered []int64
	platforms  []string
}

// changes are the rows that a batch writes and drops, each key once.
type changes struct {
	devices                stateColumns
	noDevices              deviceColumns
	subscribe, unsubscribe channelColumns
	audience               audienceColumns
	noAudience             channelColumns
}

func (c *changes) add(change *projections.Change) {
	d := change.Device
	if change.After.Empty() {
		c.noDevices.add(d)
	} else {
		c.devices.add(d, &change.After)
	}
	diff := projections.Diff(&change.Before, &change.After)
	shard := int64(schemas.ShardString(d.Token))
	for _, channel := range diff.Subscribe {
		c.subscribe.add(d)
		c.subscribe.channels = append(c.subscribe.channels, channel)
	}
	for _, channel := range diff.Unsubscribe {
		c.unsubscribe.add(d)
		c.unsubscribe.channels = append(c.unsubscribe.channels, channel)
	}
	for _, channel := range diff.Put {
		c.audience.add(d)
		c.audience.channels, c.audience.shards = append(c.audience.channels, channel), append(c.audience.shards, shard)
		c.audience.registered = append(c.audience.registered, diff.Row.RegisteredAtUS)
		c.audience.platforms = append(c.audience.platforms, diff.Row.Platform)
	}
	for _, channel := range diff.Drop {
		c.noAudience.add(d)
		c.noAudience.channels, c.noAudience.shards = append(c.noAudience.channels, channel), append(c.noAudience.shards, shard)
	}
}

// queue adds the statements that there are rows for.
func (c *changes) queue(t tables, b *pgx.Batch) {
	put := func(rows int, sql string, args []any) {
		if rows > 0 {
			b.Queue(t.sql(sql), args...)
		}
	}
	put(len(c.noDevices.apps), sqlDropDevices, c.noDevices.args())
	put(len(c.unsubscribe.apps), sqlDropSubscriptions, c.unsubscribe.args(c.unsubscribe.channels))
	put(len(c.noAudience.apps), sqlDropAudience, c.noAudience.args(c.noAudience.channels, c.noAudience.shards))
	d := &c.devices
	put(len(d.apps), sqlPutDevices, d.args(d.known, d.registered, d.platforms, d.versions, d.locales, d.timeZones, d.userIDs, d.keyIDs, d.invalidated, d.asOf))
	put(len(c.subscribe.apps), sqlPutSubscriptions, c.subscribe.args(c.subscribe.channels))
	a := &c.audience
	put(len(a.apps), sqlPutAudience, a.args(a.channels, a.shards, a.registered, a.platforms))
}

// states reads the states of devices, in the order asked.
func (t tables) states(ctx context.Context, tx pgx.Tx, devices []schemas.Device) ([]projections.State, error) {
	found := make([]projections.State, len(devices))
	if len(devices) == 0 {
		return found, nil
	}
	var keys deviceColumns
	numbers := make([]int64, len(devices))
	for i, d := range devices {
		keys.add(d)
		numbers[i] = int64(i)
	}
	b := &pgx.Batch{}
	b.Queue(t.sql(sqlDevices), keys.args(numbers)...)
	b.Queue(t.sql(sqlSubscriptions), keys.args(numbers)...)
	results := tx.SendBatch(ctx, b)
	if err := scanStates(results, found); err != nil {
		_ = results.Close() // the first error counts
		return nil, err
	}
	return found, results.Close()
}

func scanStates(results pgx.BatchResults, found []projections.State) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	var n int64
	var s projections.State
	r := &s.Registration
	fields := []any{&n, &s.Known, &r.AtUS, &r.Platform, &r.AppVersion, &r.Locale, &r.TimeZone, &r.UserID, &r.KeyID, &s.Invalidated, &s.AsOfUS}
	if _, err := pgx.ForEachRow(rows, fields, func() error { found[n] = s; return nil }); err != nil {
		return err
	}
	if rows, err = results.Query(); err != nil {
		return err
	}
	var channel string
	if _, err := pgx.ForEachRow(rows, []any{&n, &channel}, func() error {
		found[n].Channels = append(found[n].Channels, channel)
		return nil
	}); err != nil {
		return err
	}
	for i := range found {
		slices.SortFunc(found[i].Channels, strings.Compare) // the database sorts by a collation, if at all
	}
	return nil
}
