package router

import "github.com/campanile-push/campanile/schemas"

// standing is what decides whether a broadcast ends, or is forgotten.
type standing struct {
	contents  []schemas.ID // records, in log order
	same      []schemas.ID // of those after the first, the ones that ask for the same: a client's retry at another ingest
	live      bool
	cancelled bool
	run, rate bool
	expanded  bool // every cursor is done
	settled   bool // as many sends finished as were emitted, on each transport
	ended     bool
	endedAtUS int64
	leftovers bool // cursors or counts, which their owners have not forgotten yet
}

func (b *broadcast) standing() standing {
	st := standing{
		live: b.live(), cancelled: b.cancel, run: b.run, rate: b.rate, ended: b.end, endedAtUS: b.endedAtUS,
		leftovers: len(b.cursors) > 0 || len(b.parts) > 0,
	}
	for _, c := range b.contents {
		st.contents = append(st.contents, c.record)
	}
	for i := 1; i < len(b.contents); i++ {
		if b.contents[i].body == b.contents[0].body {
			st.same = append(st.same, b.contents[i].record)
		}
	}
	if st.live {
		st.expanded = b.cursorsDone() >= b.cursorCount()
		st.settled = true
		for i := range slots {
			st.settled = st.settled && b.sums[i].finished() >= b.emitted[i]
		}
	}
	return st
}

// closing is what the closer says of one broadcast.
type closing struct {
	end    bool
	forget []schemas.BroadcastKey
	dueUS  int64 // when to look again if nothing changes; zero: never
}

// closeStep says what to do with a broadcast. Once nothing can move its cursors and its sends are finished, both counts are
// final, so that an old view of them can only delay the end. Of an ended one, all else is forgotten first and the state
// last, when no cursor and no count is left: a request that comes again under its id finds it ended, or nothing at all. Of what
// lost to the first request, a retry is forgotten at once; another request under the same key stays as long as the broadcast, so
// that it is shown (other_requests).
func closeStep(id schemas.ID, st standing, nowUS, keepUS int64) closing {
	switch {
	case st.live:
		return closing{end: st.expanded && st.settled, forget: contentKeys(id, st.same)}
	case st.ended && nowUS < st.endedAtUS+keepUS:
		return closing{dueUS: st.endedAtUS + keepUS, forget: contentKeys(id, st.same)}
	}
	// Its time is over; or its request is not there, and what is left of it means nothing.
	var c closing
	if n := len(st.contents); n > 0 {
		c.forget = append(contentKeys(id, st.contents[1:]), contentKeys(id, st.contents[:1])...)
	}
	for _, control := range []struct {
		kind  schemas.BroadcastKind
		there bool
	}{{schemas.BroadcastRun, st.run}, {schemas.BroadcastRate, st.rate}, {schemas.BroadcastCancel, st.cancelled}} {
		if control.there {
			c.forget = append(c.forget, schemas.BroadcastKey{Broadcast: id, Kind: control.kind})
		}
	}
	if st.ended && len(c.forget) == 0 && !st.leftovers {
		c.forget = []schemas.BroadcastKey{{Broadcast: id, Kind: schemas.BroadcastState}}
	}
	return c
}

func contentKeys(id schemas.ID, records []schemas.ID) []schemas.BroadcastKey {
	keys := make([]schemas.BroadcastKey, 0, len(records))
	for _, r := range records {
		keys = append(keys, schemas.BroadcastKey{Broadcast: id, Kind: schemas.BroadcastContent, Record: r})
	}
	return keys
}
