package senders

import (
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// maxPayload is in bytes: APNs' limit for all but VoIP pushes, and FCM's for a message.
const maxPayload = 4096

// Errors of rendering; each ends its send as rejected, with its text as the reason.
var (
	ErrTooLarge   = errors.New("payload_too_large")
	ErrBadContent = errors.New("bad_content")
)

// copies are the keys that Campanile adds for Moodle's app beside the ones that Moodle sent: the copy, then the original.
var copies = [][2]string{
	{"notif", "notification"},
	{"moodlecomponent", "component"},
	{"siteurl", "wwwroot"},
	{"userfrom", "userfromfullname"},
}

// dispensable are data keys that a device can do without, in the order in which they go; a star stands for any ending.
var dispensable = []string{"fullmessage", "fullmessagehtml", "contexturlname", "replyto*", "attach*"}

// leastText is what is left of a text, in bytes, before the next one is shortened too.
const leastText = 40

// maxText is more than any text has: to cut it off leaves leastText.
const maxText = 1 << 40

// trimmer makes content fit. The order is fixed and documented: renamed copies, the dispensable keys, then the texts are shortened,
// longest first. Encrypted content is never touched: cut, it could not be opened.
type trimmer struct {
	c    *pushv1.Content
	step int
	over int // before the last shortening
}

// next makes a smaller copy of the content, by at least over bytes where that is possible at once. It returns nil when nothing
// is left to give.
func (t *trimmer) next(over int) *pushv1.Content {
	if t.c.Encrypted {
		return nil
	}
	for {
		var smaller *pushv1.Content
		switch {
		case t.step == 0:
			smaller = dropCopies(t.c)
			t.step++
		case t.step <= len(dispensable):
			smaller = dropData(t.c, dispensable[t.step-1])
			t.step++
		default:
			if t.over > 0 && over >= t.over { // the last one gained nothing: a text that is not shown, or a tie of escapes
				over = maxText
			} else {
				t.over = over
			}
			if smaller = shorten(t.c, over); smaller == nil {
				return nil
			}
		}
		if smaller != nil {
			t.c = smaller
			return smaller
		}
	}
}

func value(c *pushv1.Content, key string) (string, bool) {
	for _, d := range c.Data {
		if d.Key == key {
			return d.Value, true
		}
	}
	return "", false
}

// without is c less the data that drop names; nil where it names none.
func without(c *pushv1.Content, drop func(*pushv1.KeyValue) bool) *pushv1.Content {
	kept := make([]*pushv1.KeyValue, 0, len(c.Data))
	for _, d := range c.Data {
		if !drop(d) {
			kept = append(kept, d)
		}
	}
	if len(kept) == len(c.Data) {
		return nil
	}
	smaller := proto.Clone(c).(*pushv1.Content)
	smaller.Data = kept
	return smaller
}

func dropCopies(c *pushv1.Content) *pushv1.Content {
	return without(c, func(d *pushv1.KeyValue) bool {
		i := slices.IndexFunc(copies, func(pair [2]string) bool { return pair[0] == d.Key })
		if i < 0 {
			return false
		}
		original, ok := value(c, copies[i][1])
		return ok && original == d.Value // only what says nothing new
	})
}

func dropData(c *pushv1.Content, name string) *pushv1.Content {
	prefix, any := strings.CutSuffix(name, "*")
	return without(c, func(d *pushv1.KeyValue) bool {
		return d.Key == name || any && strings.HasPrefix(d.Key, prefix)
	})
}

// shorten cuts the longest text by over bytes, down to leastText; nil where all are that short.
func shorten(c *pushv1.Content, over int) *pushv1.Content {
	smaller := proto.Clone(c).(*pushv1.Content)
	texts := []*string{&smaller.Body, &smaller.Text}
	for _, d := range smaller.Data {
		if d.Key == "smallmessage" {
			texts = append(texts, &d.Value)
		}
	}
	texts = append(texts, &smaller.Title)
	longest := slices.MaxFunc(texts, func(a, b *string) int { return len(*a) - len(*b) })
	if len(*longest) <= leastText {
		return nil
	}
	const ellipsis = "…"
	size := len(appendString(nil, *longest)) - len(`""`)
	*longest = cut(*longest, max(size-over-len(ellipsis), leastText-len(ellipsis))) + ellipsis
	return smaller
}
