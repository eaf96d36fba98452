//go:build !race

package main

var raceFlags []string //nolint:gochecknoglobals // by a build tag: a proof at full size runs at full speed
