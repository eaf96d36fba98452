package ingest

import (
	"crypto/sha256"
	"io"
	"strings"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// repeatKey names what v1 and v2 requests have in common that one key made and that say the same: their path, query and body, to
// the byte. It is zero where repeats are not dropped. Moodle's messages carry ids and times, so that two of them never look alike;
// another client may well mean the same text twice, and so the setting is off by default.
func (c *call) repeatKey() schemas.ID {
	if c.server.options.RepeatWithin <= 0 {
		return schemas.ID{}
	}
	h := sha256.New()
	_, _ = io.WriteString(h, strings.TrimSuffix(c.gin.FullPath(), "/")+"\n"+c.gin.Request.URL.RawQuery+"\n")
	_, _ = h.Write(c.buf.Bytes())
	var said [32]byte
	h.Sum(said[:0])
	return schemas.RepeatKey(c.grant.app, c.grant.keyID(), said)
}

// markRepeats lets the router drop a push that comes again: all that are alike go to one partition, and the first in the log wins,
// whichever process took it. Each keeps an id of its own, since the same push may be meant again later.
func (c *call) markRepeats() {
	if key := c.repeatKey(); !key.IsZero() {
		c.repeat = key
		c.notification.RepeatKey, c.notification.RepeatWithinUs = c.repeat[:], c.server.options.RepeatWithin.Microseconds()
	}
}

// repeatedBroadcast reports whether the same broadcast was taken a moment ago; then c has its id. Otherwise it gives the request an
// id that every ingest gives to the same broadcast in this span of time, so that of two taken at once the first in the log wins.
func (c *call) repeatedBroadcast() bool {
	key := c.repeatKey()
	if key.IsZero() {
		return false
	}
	within := c.server.options.RepeatWithin
	span := c.now.UnixNano() / int64(within)
	now, before := schemas.RepeatedBroadcastID(key, span), schemas.RepeatedBroadcastID(key, span-1)
	for _, id := range []schemas.ID{now, before} { // the first look reads broadcasts to its end
		b := c.findBroadcast(id)
		if b != nil && c.now.Sub(time.UnixMicro(b.contents[0].atUS)) < within {
			c.id = id.String()
			return true
		}
	}
	c.wantedID = now
	return false
}
