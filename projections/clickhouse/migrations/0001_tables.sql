-- What the log says of deliveries, a row for each event. The last row of each (part, off) counts: a batch that is inserted
-- again after a crash adds rows that are the same in all but inserted_at, and FINAL, or a merge, leaves one of them. No bloom filters: they cost an insert half as much again, and a
-- whole column of ids is read in milliseconds.
CREATE TABLE IF NOT EXISTS deliveries_log (
    app LowCardinality(String),
    transport LowCardinality(String),
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    part UInt16,
    off Int64 CODEC(Delta, ZSTD(1)),
    kind Enum8('attempted' = 1, 'finished' = 2),
    lane LowCardinality(String),
    tier UInt8,
    source_off Int64 CODEC(Delta, ZSTD(1)),
    generation Int64 CODEC(Delta, ZSTD(1)),
    repeat Bool,
    first Bool,
    outcome LowCardinality(String),
    reason LowCardinality(String),
    attempt UInt16,
    requested_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    latency_us Int64 CODEC(T64, ZSTD(1)),
    token UInt64 CODEC(ZSTD(1)),
    send UUID CODEC(ZSTD(1)),
    broadcast UUID CODEC(ZSTD(1)),
    request UUID CODEC(ZSTD(1)),
    inserted_at DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),
    INDEX by_insert inserted_at TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(at)
ORDER BY (app, transport, at, part, off)
TTL toDateTime(at) + INTERVAL 30 DAY
SETTINGS ttl_only_drop_parts = 1;

-- What the log says of devices. Rows of a month leave together.
CREATE TABLE IF NOT EXISTS devices_log (
    app LowCardinality(String),
    event LowCardinality(String),
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    part UInt16,
    off Int64 CODEC(Delta, ZSTD(1)),
    transport LowCardinality(String),
    environment LowCardinality(String),
    token UInt64 CODEC(ZSTD(1)),
    user UInt64 CODEC(ZSTD(1)),
    channel String CODEC(ZSTD(1)),
    key_id LowCardinality(String),
    platform LowCardinality(String),
    app_version LowCardinality(String),
    locale LowCardinality(String),
    time_zone LowCardinality(String),
    reason LowCardinality(String),
    as_of DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    send UUID CODEC(ZSTD(1)),
    inserted_at DateTime('UTC') DEFAULT now() CODEC(Delta, ZSTD(1)),
    INDEX by_insert inserted_at TYPE minmax GRANULARITY 1
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (app, event, at, part, off)
TTL toDateTime(at) + INTERVAL 13 MONTH
SETTINGS ttl_only_drop_parts = 1;

-- How far the tables hold each partition of the log, and what the rows after that rest on: the generation of the owner of
-- each source of sends.
CREATE TABLE IF NOT EXISTS positions (
    topic LowCardinality(String),
    part UInt16,
    next_off Int64,
    owners Map(String, Int64),
    at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree(next_off)
ORDER BY (topic, part);

-- Ranges of the log that these tables will never hold.
CREATE TABLE IF NOT EXISTS gaps_log (
    topic LowCardinality(String),
    part UInt16,
    from_off Int64,
    to_off Int64,
    at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree(to_off)
ORDER BY (topic, part, from_off);

-- The rollups. A row is written anew from deliveries_log whenever its hour has changed; the last one counts.
CREATE TABLE IF NOT EXISTS outcomes_hour_log (
    app LowCardinality(String),
    transport LowCardinality(String),
    lane LowCardinality(String),
    kind Enum8('attempted' = 1, 'finished' = 2),
    outcome LowCardinality(String),
    reason LowCardinality(String),
    repeat Bool,
    hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    n UInt64 CODEC(T64, ZSTD(1)),
    refreshed_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))
) ENGINE = ReplacingMergeTree(refreshed_at)
PARTITION BY toYYYYMM(hour)
ORDER BY (app, transport, hour, lane, kind, outcome, reason, repeat)
TTL hour + INTERVAL 13 MONTH
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS latencies_hour_log (
    app LowCardinality(String),
    transport LowCardinality(String),
    lane LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    n UInt64,
    answer AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Int64),
    total AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Int64),
    refreshed_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))
) ENGINE = ReplacingMergeTree(refreshed_at)
PARTITION BY toYYYYMM(hour)
ORDER BY (app, transport, hour, lane)
TTL hour + INTERVAL 13 MONTH
SETTINGS ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS broadcasts_hour_log (
    app LowCardinality(String),
    broadcast UUID,
    transport LowCardinality(String),
    outcome LowCardinality(String),
    repeat Bool,
    hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    n UInt64 CODEC(T64, ZSTD(1)),
    first_at DateTime64(6, 'UTC'),
    last_at DateTime64(6, 'UTC'),
    refreshed_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))
) ENGINE = ReplacingMergeTree(refreshed_at)
PARTITION BY toYYYYMM(hour)
ORDER BY (broadcast, transport, outcome, repeat, app, hour)
TTL hour + INTERVAL 13 MONTH
SETTINGS ttl_only_drop_parts = 1;

-- Days are kept for ever.
CREATE TABLE IF NOT EXISTS outcomes_day_log (
    app LowCardinality(String),
    transport LowCardinality(String),
    outcome LowCardinality(String),
    repeat Bool,
    day Date,
    n UInt64 CODEC(T64, ZSTD(1)),
    refreshed_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))
) ENGINE = ReplacingMergeTree(refreshed_at)
PARTITION BY toYear(day)
ORDER BY (app, transport, day, outcome, repeat);
