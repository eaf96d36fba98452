-- +goose Up

-- The epoch whose tables serve; one row, read in the snapshot of the rows. Epoch 0 has the tables of the first migration, epoch n
-- devices_en and so on: they are made and dropped by rebuilds, never by migrations. Until held_until nobody applies but a rebuild.
CREATE TABLE epoch (
  id INT8 NOT NULL PRIMARY KEY CHECK (id = 1),
  active INT8 NOT NULL,
  held_until TIMESTAMPTZ NOT NULL
);

-- Who builds the next epoch; one row. last is the highest number that was ever used.
CREATE TABLE epoch_build (
  id INT8 NOT NULL PRIMARY KEY CHECK (id = 1),
  last INT8 NOT NULL,
  builder TEXT NOT NULL,
  leased_until TIMESTAMPTZ NOT NULL
);

-- Epochs that are not active: building, old (to be dropped), kept.
CREATE TABLE epochs (
  epoch INT8 NOT NULL PRIMARY KEY,
  state TEXT NOT NULL
);

-- +goose Down
DROP TABLE epochs;
DROP TABLE epoch_build;
DROP TABLE epoch;
