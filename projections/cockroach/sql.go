package cockroach

// The catalogue: every statement that the store executes. crdbcheck parses each constant of this file.
const (
	sqlVersion = `SELECT version()`

	sqlLayout    = `SELECT partitions FROM layout WHERE id = 1`
	sqlPutLayout = `INSERT INTO layout (id, partitions) VALUES (1, $1) ON CONFLICT (id) DO NOTHING`

	sqlApplied    = `SELECT part, next FROM applied ORDER BY part`
	sqlPutApplied = `INSERT INTO applied (part, next) SELECT i.part, 0 FROM unnest($1::INT8[]) AS i(part) ON CONFLICT (part) DO NOTHING`
	sqlNext       = `SELECT next FROM applied WHERE part = $1`
	// sqlMoveNext fences: whoever folded from another offset moves nothing.
	sqlMoveNext = `UPDATE applied SET next = $3 WHERE part = $1 AND next = $2`

	// i.n is the device's number in the question.
	sqlDevices = `SELECT i.n, d.known, d.registered_at_us, d.platform, d.app_version, d.locale, d.time_zone, d.user_id, d.key_id, d.invalidated, d.as_of_us
FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BYTEA[], $5::INT8[]) AS i(app, transport, environment, token, n)
JOIN devices AS d ON d.app = i.app AND d.transport = i.transport AND d.environment = i.environment AND d.token = i.token`

	sqlSubscriptions = `SELECT i.n, s.channel
FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BYTEA[], $5::INT8[]) AS i(app, transport, environment, token, n)
JOIN subscriptions AS s ON s.app = i.app AND s.transport = i.transport AND s.environment = i.environment AND s.token = i.token`

	sqlPutDevices = `INSERT INTO devices (app, transport, environment, token, known, registered_at_us, platform, app_version, locale, time_zone, user_id, key_id, invalidated, as_of_us)
SELECT i.app, i.transport, i.environment, i.token, i.known, i.registered_at_us, i.platform, i.app_version, i.locale, i.time_zone, i.user_id, i.key_id, i.invalidated, i.as_of_us
FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BYTEA[], $5::BOOL[], $6::INT8[], $7::TEXT[], $8::TEXT[], $9::TEXT[], $10::TEXT[], $11::TEXT[], $12::TEXT[], $13::BOOL[], $14::INT8[])
AS i(app, transport, environment, token, known, registered_at_us, platform, app_version, locale, time_zone, user_id, key_id, invalidated, as_of_us)
ON CONFLICT (app, transport, environment, token) DO UPDATE SET known = excluded.known, registered_at_us = excluded.registered_at_us,
platform = excluded.platform, app_version = excluded.app_version, locale = excluded.locale, time_zone = excluded.time_zone,
user_id = excluded.user_id, key_id = excluded.key_id, invalidated = excluded.invalidated, as_of_us = excluded.as_of_us`

	sqlDropDevices = `DELETE FROM devices WHERE (app, transport, environment, token) IN
(SELECT i.app, i.transport, i.environment, i.token FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BYTEA[]) AS i(app, transport, environment, token))`

	sqlPutSubscriptions = `INSERT INTO subscriptions (app, transport, environment, token, channel)
SELECT i.app, i.transport, i.environment, i.token, i.channel
FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BYTEA[], $5::TEXT[]) AS i(app, transport, environment, token, channel)
ON CONFLICT (app, transport, environment, token, channel) DO NOTHING`

	sqlDropSubscriptions = `DELETE FROM subscriptions WHERE (app, transport, environment, token, channel) IN
(SELECT i.app, i.transport, i.environment, i.token, i.channel
FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BYTEA[], $5::TEXT[]) AS i(app, transport, environment, token, channel))`

	sqlPutAudience = `INSERT INTO audience (app, transport, environment, token, channel, shard, registered_at_us, platform)
SELECT i.app, i.transport, i.environment, i.token, i.channel, i.shard, i.registered_at_us, i.platform
FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BYTEA[], $5::TEXT[], $6::INT8[], $7::INT8[], $8::TEXT[])
AS i(app, transport, environment, token, channel, shard, registered_at_us, platform)
ON CONFLICT (app, channel, transport, shard, token, environment) DO UPDATE SET registered_at_us = excluded.registered_at_us, platform = excluded.platform`

	sqlDropAudience = `DELETE FROM audience WHERE (app, channel, transport, shard, token, environment) IN
(SELECT i.app, i.channel, i.transport, i.shard, i.token, i.environment
FROM unnest($1::TEXT[], $2::INT8[], $3::INT8[], $4::BYTEA[], $5::TEXT[], $6::INT8[]) AS i(app, transport, environment, token, channel, shard))`

	// sqlInOrder leaves the planner of PostgreSQL, which alone is told, the scan of an index for the rest of the transaction. Where it holds
	// the rest of a channel for a large part of the table, it would read all of that, and sort it, for every page.
	sqlInOrder = `SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off`

	// sqlBare takes the keys from empty tables, before many rows are copied. PostgreSQL alone is told.
	sqlBare = `ALTER TABLE devices DROP CONSTRAINT devices_pkey; ALTER TABLE subscriptions DROP CONSTRAINT subscriptions_pkey;
ALTER TABLE audience DROP CONSTRAINT audience_pkey`

	// sqlFlushed makes PostgreSQL's log of a transaction be written before its end, without which a VACUUM right after it leaves all as it is.
	sqlFlushed = `SET LOCAL synchronous_commit = on`

	// sqlHidden is how many pages of the table PostgreSQL would look into to know whether their rows are there.
	sqlHidden = `SELECT relpages - relallvisible FROM pg_class WHERE oid = 'audience'::REGCLASS`

	// $4 to $6 are the cursor, and no token is empty: (shard, '', 0) stands before all of a shard.
	sqlPage = `SELECT token, environment, registered_at_us, platform FROM audience
WHERE app = $1 AND channel = $2 AND transport = $3 AND (shard, token, environment) > ($4::INT8, $5::BYTEA, $6::INT8) AND shard < $7
ORDER BY shard, token, environment LIMIT $8`

	sqlSample = `SELECT s.shard, count(*) FROM (
SELECT shard FROM audience WHERE app = $1 AND channel = $2 AND transport = $3 ORDER BY shard, token, environment LIMIT $4
) AS s GROUP BY s.shard ORDER BY s.shard`

	sqlAllDevices = `SELECT app, transport, environment, token, known, registered_at_us, platform, app_version, locale, time_zone, user_id, key_id, invalidated, as_of_us FROM devices`

	sqlAllSubscriptions = `SELECT app, transport, environment, token, channel FROM subscriptions`

	sqlAllAudience = `SELECT app, transport, environment, token, channel, shard, registered_at_us, platform FROM audience`
)
