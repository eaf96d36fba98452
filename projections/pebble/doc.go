// Package pebble is the embedded device store, on Pebble, CockroachDB's own storage engine, with the order of keys that the
// cockroach closet's primary keys have.
//
// One process owns the directory (Pebble locks it). A batch of the log is one atomic Pebble batch with its offset, so that
// after any crash the rows are those of a prefix of the log, and the offset says which.
package pebble
