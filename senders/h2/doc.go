// Package h2 carries HTTP/2 requests to a push provider over a few connections. It knows nothing of pushes, and imports nothing of
// this module.
//
// # Client
//
// Client is for many short requests to one host, such as pushes: each has a body that is in memory, and a short answer. It costs a
// fraction of net/http's CPU, because
//
//   - each connection has one goroutine that writes and one that reads, and requests have none: what is started while a write is under
//     way goes out with the next, many requests to a TLS record;
//   - what requests have in common (a Head) is encoded once, and stands in the connection's HPACK table; what is each one's own (path
//     and Fields) is a literal that is never indexed, so that it does not push the former out of the table;
//   - a request is one struct of the caller's, response included, which may be used again;
//   - one timer looks after all deadlines and contexts (so these are exact to 25 ms).
//
// Start is the form with a callback, Do the one that blocks, RoundTripper the one for net/http.
//
// What a caller can rely on:
//
//   - A request ends exactly once. An error that wraps ErrNotSent says that the server has not seen it, or says itself that it has not
//     touched it; after any other error its fate is unknown. Nothing is sent twice but what the server has not touched: streams above
//     the last one of a GOAWAY, refused streams, and those that had not left when a connection broke. These go to another connection
//     without a word, up to 16 times.
//   - Limits are kept: the server's streams, windows, frame size, header list and header table, as they change; MaxStreams and MaxConns.
//     A connection takes nothing before its SETTINGS have come, and one request alone until that is answered (APNs allows no more
//     before it has seen a valid one). A stream that was reset counts until the server has answered a PING sent after the reset.
//   - The pool grows only when a request finds no place, by one connection at a time, and not while the last one has answered nothing.
//     Dials are at least 20 ms apart; after failures, and connections that break before they answer anything, 100 ms, doubling to 5 s.
//     What waits fails with the fifth failure in a row, if there is no other connection.
//   - A peer that is silent for PingAfter is asked by PING, and given up PingTimeout later; one that does not take 64 KiB in
//     WriteTimeout is given up, too.
//   - Memory is bounded: what waits to be written by what is started (a connection takes nothing more with 1 MiB unwritten), a response
//     by MaxBody and 64 KiB of header.
//
// What it does not do: cookies, redirects, proxies, compression, streaming, server push, priorities, HTTP/1.
//
// # Transport
//
// Transport bounds x/net's client, which by itself dials another connection whenever a server lowers its stream limit, and, told to be
// strict, deadlocks (golang/go#70809). It is for the vendors' own clients.
package h2
