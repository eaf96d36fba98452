package audit

import (
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// Letter is a notification that the direct router could not handle. It names ids and places alone: no token and no text.
type Letter struct {
	Request string `json:"request_id"`
	// Place is topic[partition]@offset of the dead letter, and Of that of the notification.
	Place string `json:"place"`
	Of    string `json:"of"`
	Stage string `json:"stage"`
}

// String is the letter on one line.
func (l Letter) String() string {
	return "dead letter: request=" + l.Request + " at=" + l.Place + " (" + l.Of + " could not be handled by " + l.Stage + ")"
}

// nameLetter names a notification's dead letter once, where nothing else became of the notification.
func (p *reading) nameLetter(rec schemas.Record) error {
	e := &p.r.lettered
	if rec.Type() != pushv1.EventType_EVENT_TYPE_DEAD_LETTERED || len(p.letters) == p.o.Limit {
		return nil
	}
	if err := rec.Into(e); err != nil {
		return err
	}
	defer e.Reset() // it aliases the record
	if e.Topic != string(schemas.Notifications) || len(e.Key) != len(schemas.ID{}) {
		return nil
	}
	id := schemas.IDFrom(e.Key)
	if v := p.r.pushes.get(id); !isDead(v) || !p.name(id) {
		return nil
	}
	p.letters = append(p.letters, Letter{
		Request: text(id), Place: place(rec.Topic, rec.Partition, rec.Offset), Of: place(schemas.Notifications, e.Partition, e.Offset), Stage: cloned(e.Stage),
	})
	return nil
}
