package simulator

// apnsFrames speaks APNs in frames, for one environment.
type apnsFrames struct{ *apnsDoor }

func (d apnsFrames) provider() Provider { return APNS }
func (d apnsFrames) service() service   { return d.apnsDoor.service }
func (d apnsFrames) maxBody() int       { return maxVoIPPayload }

func (d apnsFrames) decide(s *h2Stream, body []byte, tooLarge bool) {
	s.counted = true
	if s.ready != nil {
		return
	}
	h := &s.request
	request := apnsRequest{
		method: h.values[fieldMethod], path: h.path,
		authorization: h.values[fieldAuthorization],
		topic:         h.values[fieldAPNSTopic],
		pushType:      h.values[fieldAPNSPushType],
		priority:      h.values[fieldAPNSPriority],
		expiration:    h.values[fieldAPNSExpiration],
		collapseID:    h.values[fieldAPNSCollapse],
		id:            h.values[fieldAPNSID],
		duplicate:     h.duplicate,
		body:          body,
		bodyTooLarge:  tooLarge,
	}
	c := s.conn
	s.answerID = d.answerID(&request)
	s.refusal = d.read(&request, s.answerID, c.under, c.certificate, c.now, &s.push)
	c.trusted = c.trusted || request.trusted
	if s.refusal == "" {
		s.decided = true
		s.answer = d.core.rehearseAt(&s.push, c.now)
	}
}

func (d apnsFrames) fill(r *reply, s *h2Stream) {
	if s.refusal != "" {
		d.refusal(r, s.answerID, s.refusal)
		return
	}
	d.apnsDoor.fill(r, s.answerID, &s.answer)
}

func (d apnsFrames) fail(s *h2Stream) { s.refusal = "InternalServerError" }
