package ingest

import (
	"net/http"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// processorMoodle is the only processor: AirNotifier loads whatever module the caller names.
const processorMoodle = "moodle"

// processor is extra.processor, or the refusal of one that is not there. The data holds extra and nothing else yet.
func (b *contentBuilder) processor() (string, *answer) {
	i := b.find("processor")
	if i < 0 {
		return "", nil
	}
	switch name := b.c.Data[i].Value; name {
	case "", processorMoodle:
		return name, nil
	default:
		return "", noProcessor(http.StatusBadRequest, name)
	}
}

// moodleCopies adds the names under which today's Moodle app reads what Moodle sends (contract 3.5); the raw keys
// stay. Sealed fields are copied byte for byte and never made visible: a site that seals says so in `encrypted`, also where one of
// them is plain text (4.6, 7).
func (b *contentBuilder) moodleCopies() {
	b.copyIfAbsent("notif", "notification")
	b.copyIfAbsent("moodlecomponent", "component")
	b.copyIfAbsent("siteurl", "wwwroot")
	b.copyIfAbsent("userfrom", "userfromfullname")
	if i := b.find("encrypted"); i >= 0 {
		v := b.c.Data[i].Value
		b.c.Encrypted = v == "1" || v == "true" || v == "True"
		b.c.MutableContent = b.c.Encrypted // iOS shows sealed content only through the app's service extension
	}
}

// moodleAlert fills title and body from extra (contract 3.2).
func (b *contentBuilder) moodleAlert() {
	b.c.Alert = pushv1.Content_ALERT_TITLE_BODY
	b.c.Title = "Notification"
	if i := b.find("sitefullname"); i >= 0 {
		b.c.Title = b.c.Data[i].Value
	}
	for _, key := range [...]string{"smallmessage", "fullmessage"} {
		if i := b.find(key); i >= 0 && b.c.Data[i].Value != "" {
			b.c.Body = b.c.Data[i].Value
			return
		}
	}
}
