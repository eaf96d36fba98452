// Package api is the reading half of Campanile's native API: what the log says of broadcasts, answered as JSON and as server-sent
// events, the OpenAPI document of the whole of /api/v3, and the Go client that is generated from it.
package api
