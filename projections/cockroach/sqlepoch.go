package cockroach

import (
	"regexp"
	"strconv"
)

// The catalogue's second part: epochs. Statements about rows name the tables of epoch 0; tables.sql gives them their epoch's names.
const (
	sqlPutEpoch      = `INSERT INTO epoch (id, active, held_until) VALUES (1, 0, now()) ON CONFLICT (id) DO NOTHING`
	sqlPutEpochBuild = `INSERT INTO epoch_build (id, last, builder, leased_until) VALUES (1, 0, '', now()) ON CONFLICT (id) DO NOTHING`

	sqlEpoch = `SELECT active, held_until > now() FROM epoch WHERE id = 1`
	// sqlHold takes seconds.
	sqlHold     = `UPDATE epoch SET held_until = now() + $1::FLOAT8 * '1 second'::INTERVAL WHERE id = 1`
	sqlActivate = `UPDATE epoch SET active = $1, held_until = now() WHERE id = 1 AND active = $2`

	sqlBuilder = `SELECT last, builder, leased_until > now() FROM epoch_build WHERE id = 1`
	sqlBuild   = `UPDATE epoch_build SET last = $1, builder = $2, leased_until = now() + $3::FLOAT8 * '1 second'::INTERVAL WHERE id = 1`
	sqlRenew   = `UPDATE epoch_build SET leased_until = now() + $2::FLOAT8 * '1 second'::INTERVAL WHERE id = 1 AND builder = $1`
	sqlEnd     = `UPDATE epoch_build SET builder = '', leased_until = now() WHERE id = 1 AND builder = $1`

	sqlPutState  = `INSERT INTO epochs (epoch, state) VALUES ($1, $2) ON CONFLICT (epoch) DO UPDATE SET state = excluded.state`
	sqlDropState = `DELETE FROM epochs WHERE epoch = $1`
	sqlLeftovers = `SELECT epoch FROM epochs WHERE state <> 'kept' AND epoch <> $1 ORDER BY epoch`

	sqlCreateApplied = `CREATE TABLE IF NOT EXISTS applied (
  part INT8 NOT NULL PRIMARY KEY,
  next INT8 NOT NULL
)`
	sqlCreateDevices = `CREATE TABLE IF NOT EXISTS devices (
  app TEXT NOT NULL,
  transport INT8 NOT NULL,
  environment INT8 NOT NULL,
  token BYTEA NOT NULL,
  known BOOL NOT NULL,
  registered_at_us INT8 NOT NULL,
  platform TEXT NOT NULL,
  app_version TEXT NOT NULL,
  locale TEXT NOT NULL,
  time_zone TEXT NOT NULL,
  user_id TEXT NOT NULL,
  key_id TEXT NOT NULL,
  invalidated BOOL NOT NULL,
  as_of_us INT8 NOT NULL,
  PRIMARY KEY (app, transport, environment, token)
)`
	sqlCreateSubscriptions = `CREATE TABLE IF NOT EXISTS subscriptions (
  app TEXT NOT NULL,
  transport INT8 NOT NULL,
  environment INT8 NOT NULL,
  token BYTEA NOT NULL,
  channel TEXT NOT NULL,
  PRIMARY KEY (app, transport, environment, token, channel)
)`
	sqlCreateAudience = `CREATE TABLE IF NOT EXISTS audience (
  app TEXT NOT NULL,
  channel TEXT NOT NULL,
  transport INT8 NOT NULL,
  shard INT8 NOT NULL,
  token BYTEA NOT NULL,
  environment INT8 NOT NULL,
  registered_at_us INT8 NOT NULL,
  platform TEXT NOT NULL,
  PRIMARY KEY (app, channel, transport, shard, token, environment)
)`
	// In the order in which transactions read them.
	sqlDropTables = `DROP TABLE IF EXISTS applied, devices, subscriptions, audience`
)

// tables are those of one epoch.
type tables struct{ epoch int64 }

var rowTables = regexp.MustCompile(`\b(devices|subscriptions|audience|applied)(_pkey)?\b`)

// sql is a statement of the catalogue about this epoch's tables.
func (t tables) sql(statement string) string {
	if t.epoch == 0 {
		return statement
	}
	return rowTables.ReplaceAllString(statement, "${1}_e"+strconv.FormatInt(t.epoch, 10)+"${2}")
}
