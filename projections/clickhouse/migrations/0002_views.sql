CREATE OR REPLACE VIEW deliveries (
    app LowCardinality(String) COMMENT 'The app that the push was for',
    transport LowCardinality(String) COMMENT 'apns or fcm',
    at DateTime64(6, 'UTC') COMMENT 'When the attempt was answered (attempted) or the send ended (finished)',
    kind Enum8('attempted' = 1, 'finished' = 2) COMMENT 'finished ends a send, and there is one for each send; attempted is a try that did not end it',
    lane LowCardinality(String) COMMENT 'direct: one device was notified; bulk: a broadcast; router: refused before it became a send',
    repeat Bool COMMENT 'Finished again by a sender that had lost the partition: not a send more. Leave these out when you count sends',
    first Bool COMMENT 'Nothing was known of this send before',
    outcome LowCardinality(String) COMMENT 'accepted, token_invalid, rejected, expired, cancelled; attempted also throttled, unavailable, misconfigured',
    reason LowCardinality(String) COMMENT 'The provider''s word, or Campanile''s own where no provider was asked',
    attempt UInt16 COMMENT 'Attempts made so far; 0: none',
    requested_at DateTime64(6, 'UTC') COMMENT 'When the push was asked for; 1970 where the event does not say (attempted)',
    latency_us Int64 COMMENT 'Microseconds until the provider answered the last attempt; 0: it was not asked',
    token UInt64 COMMENT 'Keyed hash of the device: app, transport, environment and token',
    send UUID COMMENT 'Id of the send; apns-id at Apple',
    broadcast UUID COMMENT 'Id of the broadcast; zeros: a notification to one device',
    request UUID COMMENT 'Id of the notification to one device; zeros: a broadcast',
    part UInt16 COMMENT 'Partition of the topic deliveries',
    off Int64 COMMENT 'Offset in that partition',
    inserted_at DateTime('UTC') COMMENT 'When ClickHouse got the row'
) AS SELECT app, transport, at, kind, lane, repeat, first, outcome, reason, attempt, requested_at, latency_us, token, send, broadcast, request, part, off, inserted_at
FROM deliveries_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW device_events (
    app LowCardinality(String) COMMENT 'The app',
    event LowCardinality(String) COMMENT 'registered, unregistered, invalidated, subscribed, unsubscribed',
    at DateTime64(6, 'UTC') COMMENT 'When it happened',
    transport LowCardinality(String) COMMENT 'apns or fcm',
    environment LowCardinality(String) COMMENT 'production or sandbox (APNs)',
    token UInt64 COMMENT 'Keyed hash of the device; the same as in deliveries',
    user UInt64 COMMENT 'Keyed hash of the user id that registered the device; 0: none was given',
    channel String COMMENT 'Of subscribed and unsubscribed',
    key_id LowCardinality(String) COMMENT 'Id of the access key, and so of the site, that asked for it',
    platform LowCardinality(String) COMMENT 'As the phone sent it (registered)',
    app_version LowCardinality(String) COMMENT 'Version of the app (registered)',
    locale LowCardinality(String) COMMENT 'Language of the phone, BCP 47 (registered)',
    time_zone LowCardinality(String) COMMENT 'IANA time zone of the phone (registered)',
    reason LowCardinality(String) COMMENT 'The provider''s word (invalidated)',
    as_of DateTime64(6, 'UTC') COMMENT 'Registrations up to then are dead (invalidated)',
    send UUID COMMENT 'The send that found the device dead (invalidated)',
    part UInt16 COMMENT 'Partition of the topic devices',
    off Int64 COMMENT 'Offset in that partition',
    inserted_at DateTime('UTC') COMMENT 'When ClickHouse got the row'
) AS SELECT app, event, at, transport, environment, token, user, channel, key_id, platform, app_version, locale, time_zone, reason, as_of, send, part, off, inserted_at
FROM devices_log FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW gaps (
    topic LowCardinality(String) COMMENT 'Topic of the log',
    part UInt16 COMMENT 'Partition',
    from_off Int64 COMMENT 'First offset that is not here',
    to_off Int64 COMMENT 'Offset after the last that is not here',
    events Int64 COMMENT 'How many records the range can have held',
    at DateTime64(3, 'UTC') COMMENT 'When it was given up'
) AS SELECT topic, part, from_off, to_off, to_off - from_off AS events, at FROM gaps_log FINAL;

CREATE OR REPLACE VIEW outcomes_hour (
    app LowCardinality(String) COMMENT 'The app',
    transport LowCardinality(String) COMMENT 'apns or fcm',
    lane LowCardinality(String) COMMENT 'direct, bulk or router',
    kind Enum8('attempted' = 1, 'finished' = 2) COMMENT 'As in deliveries',
    outcome LowCardinality(String) COMMENT 'As in deliveries',
    reason LowCardinality(String) COMMENT 'As in deliveries',
    repeat Bool COMMENT 'As in deliveries',
    hour DateTime('UTC') COMMENT 'The hour in which they ended',
    n UInt64 COMMENT 'How many'
) AS SELECT app, transport, lane, kind, outcome, reason, repeat, hour, n FROM outcomes_hour_log FINAL;

CREATE OR REPLACE VIEW outcomes_day (
    app LowCardinality(String) COMMENT 'The app',
    transport LowCardinality(String) COMMENT 'apns or fcm',
    outcome LowCardinality(String) COMMENT 'How the send ended',
    repeat Bool COMMENT 'As in deliveries',
    day Date COMMENT 'The day in which they ended, UTC',
    n UInt64 COMMENT 'How many sends'
) AS SELECT app, transport, outcome, repeat, day, n FROM outcomes_day_log FINAL;

CREATE OR REPLACE VIEW latencies_hour (
    app LowCardinality(String) COMMENT 'The app',
    transport LowCardinality(String) COMMENT 'apns or fcm',
    lane LowCardinality(String) COMMENT 'direct or bulk',
    hour DateTime('UTC') COMMENT 'The hour in which the sends ended',
    n UInt64 COMMENT 'Accepted sends',
    answer_us Array(Float32) COMMENT 'Microseconds until the provider answered: median, p95, p99',
    total_us Array(Float32) COMMENT 'Microseconds from the request to the end: median, p95, p99'
) AS SELECT app, transport, lane, hour, n, finalizeAggregation(answer) AS answer_us, finalizeAggregation(total) AS total_us FROM latencies_hour_log FINAL;

CREATE OR REPLACE VIEW broadcasts_hour (
    app LowCardinality(String) COMMENT 'The app',
    broadcast UUID COMMENT 'Id of the broadcast',
    transport LowCardinality(String) COMMENT 'apns or fcm',
    outcome LowCardinality(String) COMMENT 'How the sends ended',
    repeat Bool COMMENT 'As in deliveries',
    hour DateTime('UTC') COMMENT 'The hour in which they ended',
    n UInt64 COMMENT 'How many sends',
    first_at DateTime64(6, 'UTC') COMMENT 'The first of them',
    last_at DateTime64(6, 'UTC') COMMENT 'The last of them'
) AS SELECT app, broadcast, transport, outcome, repeat, hour, n, first_at, last_at FROM broadcasts_hour_log FINAL;
