// Package schemas holds the words that every room speaks: events and their wire form, topics, keys and partitions, ids,
// devices and audiences, and the shape of a stage (Record, Batch, Out). It knows no Kafka and no database.
package schemas
