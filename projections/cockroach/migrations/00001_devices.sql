-- +goose Up

-- What the store was built for; one row.
CREATE TABLE layout (
  id INT8 NOT NULL PRIMARY KEY CHECK (id = 1),
  partitions INT8 NOT NULL
);

-- By partition of the topic devices, the offset after the last record that the rows contain.
CREATE TABLE applied (
  part INT8 NOT NULL PRIMARY KEY,
  next INT8 NOT NULL
);

-- Tokens are bytes: text would sort by a collation, and pages are in the order of bytes. Times are Unix microseconds.
CREATE TABLE devices (
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
);

-- Subscriptions that count, also of dead devices.
CREATE TABLE subscriptions (
  app TEXT NOT NULL,
  transport INT8 NOT NULL,
  environment INT8 NOT NULL,
  token BYTEA NOT NULL,
  channel TEXT NOT NULL,
  PRIMARY KEY (app, transport, environment, token, channel)
);

-- Alive devices by channel, in the order of a broadcast's cursor. A table and no index of subscriptions: it has rows only of
-- the living, and CockroachDB splits it by shard.
CREATE TABLE audience (
  app TEXT NOT NULL,
  channel TEXT NOT NULL,
  transport INT8 NOT NULL,
  shard INT8 NOT NULL,
  token BYTEA NOT NULL,
  environment INT8 NOT NULL,
  registered_at_us INT8 NOT NULL,
  platform TEXT NOT NULL,
  PRIMARY KEY (app, channel, transport, shard, token, environment)
);

-- +goose Down
DROP TABLE audience;
DROP TABLE subscriptions;
DROP TABLE devices;
DROP TABLE applied;
DROP TABLE layout;
