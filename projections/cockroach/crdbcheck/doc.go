// Package crdbcheck parses every SQL statement of the cockroach closet with CockroachDB's own grammar. It is a module of its
// own, so that the parser's five hundred modules stay out of the main one.
package crdbcheck
