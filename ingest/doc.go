// Package ingest takes HTTP in and puts facts out: AirNotifier's v1 and v2 APIs as Moodle sites, phones and older clients speak them,
// with their texts, statuses and quirks, and one append to the log for each request that it accepts. It answers a success only
// after the log has acknowledged that append, and a "no" about a device only when the store has proven it.
package ingest
