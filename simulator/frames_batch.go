package simulator

// completed has a whole request decided, and puts it into the batch.
func (c *h2Conn) completed(s *h2Stream, body []byte, tooLarge bool) {
	s.complete = true
	c.doneID = max(c.doneID, s.id)
	c.door.decide(s, body, tooLarge)
	if s.counted {
		c.counted.arrived++
	}
	switch a := &s.answer; {
	case a.fault == FaultUnprocessed:
		c.unprocessed(s)
		return
	case s.decided && !s.dry && a.accepted():
		s.recorded = true
		c.entries = append(c.entries, s.push.entry(a))
	}
	c.batch = append(c.batch, s)
	if breaksAtOnce(&s.answer) {
		c.stop = true // what came behind it was never looked at
	}
}

// breaksAtOnce reports whether nothing can follow.
func breaksAtOnce(a *answer) bool {
	return a.delay == 0 && (a.fault == FaultReset || a.fault == FaultResetAfter || a.fault == FaultFreeze)
}

// unprocessed refuses a request and what comes behind it, so that both may safely be sent elsewhere.
func (c *h2Conn) unprocessed(s *h2Stream) {
	c.silence(s)
	id, done := s.id, uint32(0)
	for _, other := range c.batch {
		done = max(done, other.id)
	}
	for at, other := range c.streams {
		if other.complete && other != s {
			done = max(done, at)
		}
	}
	if y := c.youngest; y != nil && y.complete && y != s {
		done = max(done, y.id)
	}
	if done > id { // a younger one was processed: GOAWAY cannot leave this one out
		c.out = appendRSTStream(c.out, s.id, codeRefused)
		c.forget(s)
		c.away(done, codeNo, `{"reason":"Shutdown"}`)
		return
	}
	c.forget(s)
	c.away(max(id, 2)-2, codeNo, `{"reason":"Shutdown"}`)
	c.drop(c.awayLast)
}

// settle records what of the batch was accepted, in one write, and answers it.
func (c *h2Conn) settle() {
	if len(c.batch) == 0 {
		return
	}
	core := c.server.core
	core.stats.arrived(c.counted.arrived)
	c.counted.arrived = 0
	c.lastPush = c.now
	var err error
	if len(c.entries) > 0 {
		if err = core.ledger.Append(c.entries...); err != nil {
			c.server.logger.Error("pushes could not be recorded", "count", len(c.entries), "error", err)
		}
		c.entries = c.entries[:0]
	}
	batch := c.batch
	c.batch = c.batch[:0]
	for i, s := range batch {
		batch[i] = nil
		if s.recorded {
			if err != nil {
				c.door.fail(s)
				s.recorded, s.answer = false, answer{}
			} else {
				core.samples.keep(&s.push)
			}
		}
		s.push.Body = nil // it stands in the reader's buffer
		if s.answer.delay > 0 {
			core.stats.delayed(s.answer.delay, 1)
			s.held = true
			c.server.wheel.add(s, s.answer.delay)
			continue
		}
		if s.decided {
			c.counted.prompt++
		}
		c.deliver(s)
	}
	c.adapt()
}

// fire answers what the wheel held back. It is called by the wheel's goroutine.
func fire(due *h2Stream) {
	var conns []*h2Conn // that get answers; each is woken once, for all of them
	for due != nil {
		c := due.conn
		c.mu.Lock()
		for due != nil && due.conn == c {
			s := due
			due, s.next = s.next, nil
			switch {
			case s.starving:
				c.feed()
			case s.gone:
				c.recycle(s)
			default:
				c.deliver(s)
			}
		}
		if !c.dirty {
			c.dirty = true
			conns = append(conns, c)
		}
		c.mu.Unlock()
	}
	for _, c := range conns {
		c.mu.Lock()
		c.dirty = false
		c.adapt()
		c.count()
		c.flush()
		c.mu.Unlock()
	}
}

// deliver gives the answer of a decided stream, or breaks what is to be broken.
func (c *h2Conn) deliver(s *h2Stream) {
	s.held = false
	switch a := &s.answer; a.fault {
	case FaultRST, FaultRSTAfter:
		c.resetStream(s, codeInternal)
		return
	case FaultRSTRefused:
		c.resetStream(s, codeRefused)
		return
	case FaultRSTCancel:
		c.resetStream(s, codeCancel)
		return
	case FaultReset, FaultResetAfter:
		c.silence(s)
		c.stop = true
		c.close(modeReset)
		return
	case FaultFreeze:
		c.silence(s)
		c.stop = true
		c.under.freeze()
		return
	case FaultBlackhole:
		c.silence(s)
		return
	case FaultDrip:
		c.dripPause = a.pause
		if a.pause == 0 {
			c.dripPause = dripPause
		}
	case FaultSlowRead:
		c.under.slowRead(a.pause)
	case FaultStarve:
		c.starve(a.pause)
	case FaultGoAway, FaultUnprocessed: // the one stands in the reply, the other was refused at once
	}
	if s.ready != nil {
		c.answer(s, s.ready)
		return
	}
	c.door.fill(&c.reply, s)
	c.answer(s, &c.reply)
}

// silence leaves a push without an answer until the client or the connection ends it.
func (c *h2Conn) silence(s *h2Stream) {
	c.counted.answer(0, string(s.answer.fault))
	if s.recorded {
		c.counted.cut++
	}
	s.silent = true
}

func (c *h2Conn) resetStream(s *h2Stream, why code) {
	c.silence(s)
	c.out = appendRSTStream(c.out, s.id, why)
	c.forget(s)
}

// adapt changes the stream limit as APNs does: up with the first good credentials, down with refusals.
func (c *h2Conn) adapt() {
	refused, fine := c.refused, c.fine
	c.refused, c.fine = false, false
	if !c.trusted || c.mode != modeOpen || c.goingAway {
		return
	}
	switch {
	case !c.raised:
		c.raised = true
		c.limit(c.streamsMax)
	case !c.settings.Shrink:
	case refused:
		c.limit(max(1, c.limits.now/2))
	case fine:
		c.limit(min(c.streamsMax, c.limits.now*2))
	}
}

// tally is what a connection adds to the stats once for each batch.
type tally struct {
	arrived, left, cut, doubt, prompt int64
	answers                           []answerTally
}

type answerTally struct {
	status int
	reason string
	times  int64
}

func (t *tally) answer(status int, reason string) {
	for i := range t.answers {
		if a := &t.answers[i]; a.status == status && a.reason == reason {
			a.times++
			return
		}
	}
	t.answers = append(t.answers, answerTally{status, reason, 1})
}

// count hands the tally over.
func (c *h2Conn) count() {
	t, s := &c.counted, c.server.core.stats
	if t.arrived > 0 {
		s.arrived(t.arrived)
	}
	if t.left > 0 {
		s.left(t.left)
	}
	if t.cut > 0 {
		s.cut.Add(t.cut)
	}
	if t.doubt > 0 {
		s.doubt.Add(t.doubt)
	}
	if t.prompt > 0 {
		s.delayed(0, t.prompt)
	}
	for _, a := range t.answers {
		s.answeredTimes(c.door.service(), a.status, a.reason, a.times)
	}
	*t = tally{answers: t.answers[:0]}
}
