package api

import _ "embed"

// Prefix is the path of the native API.
const Prefix = "/api/v3"

// problemSpace is where the types of errors are named.
const problemSpace = "https://campanile-push.org/problems/"

// Document is the OpenAPI 3.1 description of /api/v3, its reads and its writes. The client is generated from it: `go generate ./api`.
//
//go:embed openapi.json
var Document []byte

//go:generate go run ./generate openapi.json client_gen.go
