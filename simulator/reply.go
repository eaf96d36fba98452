package simulator

import (
	"net/http"
	"strconv"
	"time"
)

// reply is an answer in HTTP's terms, for either server to write. It is reused: reset it.
type reply struct {
	status int
	reason string // what stats count it by; "": accepted
	header []headerField
	body   []byte
	end    bool // the connection is told to end behind it
}

// headerField is a header field; its name is in lower case.
type headerField struct{ name, value string }

func (r *reply) reset() { *r = reply{header: r.header[:0], body: r.body[:0]} }

func (r *reply) set(name, value string) { r.header = append(r.header, headerField{name, value}) }

// retryAfter sets the header in either form of RFC 9110, section 10.2.3; nothing for 0.
func (r *reply) retryAfter(d time.Duration, asDate bool, now time.Time) {
	if d <= 0 {
		return
	}
	seconds := int64((d + time.Second - 1) / time.Second)
	if asDate {
		r.set("retry-after", now.Add(time.Duration(seconds)*time.Second).UTC().Format(http.TimeFormat))
		return
	}
	r.set("retry-after", strconv.FormatInt(seconds, 10))
}

// write is how net/http says it.
func (r *reply) write(w http.ResponseWriter) {
	for _, f := range r.header {
		w.Header().Set(f.name, f.value)
	}
	if r.end {
		w.Header().Set("Connection", "close") // net/http makes a GOAWAY of it
	}
	w.WriteHeader(r.status)
	if len(r.body) > 0 {
		_, _ = w.Write(r.body) // whoever went away does not read it
	}
}
