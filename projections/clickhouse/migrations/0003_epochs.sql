-- How far the tables hold each partition of the log, by epoch: in place of positions, whose largest offset counted for ever. A rebuild begins a
-- new epoch at the end of what it has built. What a process writes late under an older one counts no longer.
CREATE TABLE IF NOT EXISTS places (
    topic LowCardinality(String),
    part UInt16,
    epoch UInt64,
    next_off Int64,
    owners Map(String, Int64),
    at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree(next_off)
ORDER BY (topic, part, epoch);

INSERT INTO places (topic, part, epoch, next_off, owners) SELECT topic, part, 0, next_off, owners FROM positions FINAL;

-- The epochs of a topic. step: 1 days are being replaced, and nobody inserts; 2 open; 3 withdrawn. The highest one that is not withdrawn counts; 0
-- needs no row. build is the table that the days are replaced from.
CREATE TABLE IF NOT EXISTS epochs_log (
    topic LowCardinality(String),
    epoch UInt64,
    step UInt8,
    build String,
    days Array(UInt32),
    at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = MergeTree
ORDER BY (topic, epoch, step);
