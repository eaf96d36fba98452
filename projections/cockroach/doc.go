// Package cockroach is the device store on CockroachDB, for many processes. PostgreSQL speaks the same protocol and runs the
// same statements: it stands in for CockroachDB in tests, and serves small installations.
//
// All statements stand in sql.go and migrations/, in the subset of SQL that both know; crdbcheck parses them with
// CockroachDB's own grammar. What differs between the two stands in tx.go.
package cockroach
