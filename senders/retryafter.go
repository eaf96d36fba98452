package senders

import (
	"net/http"
	"strconv"
	"time"
)

// maxRetryAfter bounds what a provider may ask for: a longer wait than a message's life says nothing more.
const maxRetryAfter = 24 * time.Hour

// ReadRetryAfter reads a Retry-After header: seconds, or an HTTP date (RFC 9110, section 10.2.3). What is unreadable, past or
// negative is zero.
func ReadRetryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	var wait time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
