// Package router turns requests into sends: one for a notification, one for each device of a broadcast's audience.
//
// Direct handles notifications; it is at-least-once with derived ids and shares nothing with broadcasts. Broadcasts schedules
// the cursors of live broadcasts and writes each page of sends in one transaction with the cursor's new place. Tally counts
// what became of the sends; Closer records the end and forgets what is over. State is what the last three know of the log.
// Headroom slows large broadcasts down while notifications and small broadcasts come.
//
// The package knows no Kafka: eventlog runs these stages.
package router
