// Package h2 carries HTTP/2 requests to a provider over a few connections. Transport bounds x/net's client, which by itself dials
// another connection whenever a server lowers its stream limit, and, told to be strict, deadlocks (golang/go#70809).
package h2
