package cockroach

// What PostgreSQL alone is told, and CockroachDB has no word for: crdbcheck does not parse it.
const (
	sqlVacuum = `VACUUM (ANALYZE) devices, subscriptions, audience` //nolint:misspell // the server's word

	// sqlCover puts all that a page reads into the key's index, where CockroachDB has it by itself: else PostgreSQL fetches each row from a
	// place of its own (measured: 2 to 3 times the server's CPU, and a read of the disk where the table is larger than its cache).
	sqlCover = `ALTER TABLE audience DROP CONSTRAINT audience_pkey,
ADD CONSTRAINT audience_pkey PRIMARY KEY (app, channel, transport, shard, token, environment) INCLUDE (registered_at_us, platform)`

	// sqlKeys makes what sqlBare took away: an index of sorted rows costs a part of one that grows row by row.
	sqlKeys = `SET LOCAL maintenance_work_mem = '256MB';
ALTER TABLE devices ADD CONSTRAINT devices_pkey PRIMARY KEY (app, transport, environment, token);
ALTER TABLE subscriptions ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (app, transport, environment, token, channel);
ALTER TABLE audience ADD CONSTRAINT audience_pkey PRIMARY KEY (app, channel, transport, shard, token, environment) INCLUDE (registered_at_us, platform)`
)
