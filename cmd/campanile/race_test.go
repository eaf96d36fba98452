//go:build race

package main

// raceFlags build the binary under test as the test itself was built.
var raceFlags = []string{"-race"} //nolint:gochecknoglobals // by a build tag
