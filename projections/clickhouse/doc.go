// Package clickhouse keeps the analytics: a row for each delivery and each change of a device, rollups by hour and day, and the
// questions that stats, reconcile and the API ask of them. The engine is a ClickHouse server or the embedded one; the package
// knows a URL and nothing else.
//
// Rows stand exactly once however often a batch comes: each is a function of its record and of the state that the partition's
// position holds, its key ends in the record's partition and offset, and the tables replace equal keys. See
// docs/adr/0005-exactly-once-analytics.md.
package clickhouse
