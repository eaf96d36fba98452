package senders

import "time"

// flood counts bad-token answers by the minute, in one app.
type flood struct {
	sinceUS           int64
	answers, suspects int
}

// Why bad-token answers are not believed.
const (
	tokenFlood = "token_flood" // too many at once
	unproven   = "unproven"    // no push was taken under these credentials yet
)

// Defaults of Options: what counts as a flood.
const (
	floodLeast = 20
	floodShare = 0.5
)

// observe reports whether, this minute, so many answers call tokens bad that credentials or environment must be.
func (f *flood) observe(suspect bool, nowUS int64, least int, share float64) bool {
	if nowUS-f.sinceUS > time.Minute.Microseconds() {
		*f = flood{sinceUS: nowUS}
	}
	f.answers++
	if suspect {
		f.suspects++
	}
	return f.suspects >= least && float64(f.suspects) > share*float64(f.answers)
}
