// Package chdb runs ClickHouse's engine as a library (chDB) in a child process of the same binary, behind the part of
// ClickHouse's HTTP interface that clickhouse-go speaks. The parent knows a URL and nothing else, so that the analytics
// have one SQL and one driver, small and large.
//
// The engine is a child because it brings its own signal handlers, up to a gigabyte of memory and threads of its own:
// none of that is the pipeline's. Start runs the child and restarts it; ServeChild is what the child does. The library is
// loaded by Serve and ServeChild only, never by importing this package.
package chdb
