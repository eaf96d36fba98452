// Package projections holds what is derived from the log to answer questions: the device store's contract, and the fold that
// its implementations share.
//
// A store is a function of the topic devices: [Read] decodes a batch and checks all of it, [Facts.Fold] moves the states of
// the devices in it, and the implementation writes the difference together with the applied offset. What the fold means
// stands in state.go. The closets pebble and cockroach keep the rows; storetest is the suite that both pass.
package projections
