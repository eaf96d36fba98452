package bench

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// app is the one that every benchmark pushes for.
const app = "commoodlemoodlemobile"

// moodleData is the data of a forum post's notification, as Moodle's airnotifier plugin sends it.
func moodleData(i int) []*pushv1.KeyValue {
	return []*pushv1.KeyValue{
		{Key: "courseid", Value: "1"},
		{Key: "component", Value: "mod_forum"},
		{Key: "name", Value: "posts"},
		{Key: "notification", Value: "1"},
		{Key: "contexturl", Value: fmt.Sprintf("https://moodle.example.org/mod/forum/discuss.php?d=%d#p%d", i%977, i)},
		{Key: "savedmessageid", Value: fmt.Sprint(100_000 + i)},
		{Key: "userfromid", Value: fmt.Sprint(i % 1009)},
		{Key: "usertoid", Value: fmt.Sprint(i % 5003)},
		{Key: "userfromfullname", Value: "Anne O'Neil"},
		{Key: "processor", Value: "moodle"},
		{Key: "site", Value: "0123456789abcdef0123456789abcdef"},
		{Key: "sitefullname", Value: "Campus"},
		{Key: "wwwroot", Value: "https://moodle.example.org"},
	}
}

// notification is a request for a push of Moodle's size, about 850 bytes; its number stands in the id.
func notification(i int) *pushv1.NotificationRequested {
	id := make([]byte, len(schemas.ID{}))
	binary.BigEndian.PutUint64(id[8:], uint64(i))
	phone := MakePhone("bench", i)
	e := &pushv1.NotificationRequested{
		RequestId: id, App: app, KeyId: "0123456789abcdef0123456789abcdef", Transport: schemas.FCM, Token: phone.Token, Platform: phone.Platform,
		RequestedAtUs: 1_790_000_000_000_000 + int64(i), RegisteredAtUs: 1_780_000_000_000_000, MayCreate: true,
		Content: &pushv1.Content{
			Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "Re: Timetable", Body: "Anne O'Neil posted in Timetable", Data: moodleData(i),
		},
	}
	if phone.transport() == schemas.APNS {
		e.Transport = schemas.APNS
	}
	return e
}

// encoded is an event as a bare client gets it.
type encoded struct {
	topic      schemas.Topic
	partition  int32
	key, value []byte
}

// encode makes the records of events as the log would.
func encode(layout schemas.Layout, say func(out *schemas.Out)) []encoded {
	out := schemas.NewOut(layout)
	say(out)
	list := make([]encoded, 0, out.Len())
	out.Each(func(topic schemas.Topic, partition int32, key, value []byte) {
		list = append(list, encoded{topic, partition, key, value})
	})
	return list
}

// transport is the one that the phone's platform has.
func (p Phone) transport() schemas.Transport {
	if p.Platform == "ios" {
		return schemas.APNS
	}
	return schemas.FCM
}

func (p Phone) device() schemas.Device {
	return schemas.Device{App: app, Transport: p.transport(), Token: p.Token}
}

// payload is a content whose APNs payload has 200 bytes: senders.RenderAPNS adds 58 of JSON around the title and the body.
func payload() *pushv1.Content {
	return &pushv1.Content{Alert: pushv1.Content_ALERT_TITLE_BODY, Title: "Campus", Body: strings.Repeat("The library closes at six. ", 6)[:payloadBody]}
}

const payloadBody = 136
