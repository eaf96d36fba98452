package h2_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/campanile-push/campanile/senders/h2"
)

// lab is a client whose connections are pipes to peers made of raw frames, in a bubble with a clock of its own.
type lab struct {
	t     *testing.T
	c     *h2.Client
	peers chan *peer
	all   []*peer
	dials int
	fail  error // of the next dials
}

// peer is the server's end of a connection.
type peer struct {
	t    *testing.T
	conn net.Conn
	fr   *http2.Framer
	enc  *hpack.Encoder
	out  bytes.Buffer
	in   chan http2.Frame // copies of what came; closed at the end
	done chan struct{}    // closed with the test
	got  map[uint32]map[string]string
}

// bubble runs a test with a lab. The client is closed at its end.
func bubble(t *testing.T, run func(t *testing.T, l *lab), change ...func(o *h2.ClientOptions)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, peers: make(chan *peer, 100)}
		o := h2.ClientOptions{Dial: l.dial}
		for _, f := range change {
			f(&o)
		}
		c, err := h2.NewClient(o)
		if err != nil {
			t.Fatal(err)
		}
		l.c = c
		defer func() {
			for _, p := range l.all {
				close(p.done)
				_ = p.conn.Close()
			}
			c.Close()
		}()
		run(t, l)
	})
}

func (l *lab) dial(context.Context) (net.Conn, error) {
	l.dials++
	if l.fail != nil {
		return nil, l.fail
	}
	ours, theirs := net.Pipe()
	p := &peer{t: l.t, conn: theirs, in: make(chan http2.Frame, 10_000), done: make(chan struct{}), got: map[uint32]map[string]string{}}
	l.all = append(l.all, p)
	l.peers <- p
	return ours, nil
}

// accept takes the next connection: preface and the client's SETTINGS are read. Without settings the server stays silent.
func (l *lab) accept(settings ...http2.Setting) *peer {
	l.t.Helper()
	p := l.acceptSilent()
	p.settings(settings...)
	return p
}

func (l *lab) acceptSilent() *peer {
	l.t.Helper()
	p := <-l.peers
	br := bufio.NewReader(p.conn)
	text := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(br, text); err != nil || string(text) != http2.ClientPreface {
		l.t.Fatalf("want the preface, got %q, %v", text, err)
	}
	p.fr = http2.NewFramer(p.conn, br)
	p.enc = hpack.NewEncoder(&p.out)
	p.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	go func() {
		defer close(p.in)
		defer p.conn.Close()
		for {
			f, err := p.fr.ReadFrame()
			if err != nil {
				return
			}
			select {
			case p.in <- copied(f):
			case <-p.done:
				return
			}
		}
	}()
	if _, ok := p.next().(*http2.SettingsFrame); !ok {
		l.t.Fatal("want SETTINGS first")
	}
	return p
}

// data is a copy of a DATA frame, whose bytes the framer would take back.
type data struct {
	http2.FrameHeader
	body string
}

// goAway is a copy of a GOAWAY frame.
type goAway struct {
	http2.FrameHeader
	code http2.ErrCode
}

func copied(f http2.Frame) http2.Frame {
	switch f := f.(type) {
	case *http2.DataFrame:
		return &data{f.Header(), string(f.Data())}
	case *http2.GoAwayFrame:
		return &goAway{f.Header(), f.ErrCode}
	case *http2.SettingsFrame:
		return f
	}
	return f
}

func (p *peer) settings(s ...http2.Setting) { _ = p.fr.WriteSettings(s...) }

// next is the next frame; nil: the connection has ended.
func (p *peer) next() http2.Frame {
	p.t.Helper()
	select {
	case f := <-p.in:
		return f
	case <-time.After(time.Hour):
		p.t.Fatal("the client fell silent")
		return nil
	}
}

// until returns the next frame of a kind, and skips others.
func until[F http2.Frame](p *peer) F {
	p.t.Helper()
	for {
		f := p.next()
		if f == nil {
			p.t.Fatalf("the connection ended before a %T came", *new(F))
		}
		if want, ok := f.(F); ok {
			return want
		}
	}
}

// request is the next request's stream. Its body, if any, is left.
func (p *peer) request() uint32 {
	p.t.Helper()
	f := until[*http2.MetaHeadersFrame](p)
	fields := map[string]string{}
	for _, h := range f.Fields {
		fields[h.Name] = h.Value
	}
	p.got[f.StreamID] = fields
	return f.StreamID
}

func (p *peer) headers(id uint32, end bool, fields ...string) {
	p.out.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.out.Bytes(), EndHeaders: true, EndStream: end})
}

func (p *peer) answer(id uint32) { p.headers(id, true, ":status", "200") }

// pending is a request under way.
type pending chan error

// start starts a request with a body of n bytes.
func (l *lab) start(n int) pending { return l.startUntil(n, time.Time{}) }

func (l *lab) startUntil(n int, deadline time.Time) pending {
	l.t.Helper()
	p := make(pending, 2)
	r := &h2.Request{Head: head(l.t, "host", "/x"), Body: bytes.Repeat([]byte{'x'}, n), Deadline: deadline}
	r.Done = func(_ *h2.Request, res *h2.Response, err error) {
		if err == nil && res.Status != 200 {
			err = errors.New("another status")
		}
		p <- err
	}
	if err := l.c.Start(l.t.Context(), r); err != nil {
		l.t.Fatal(err)
	}
	return p
}

func (p pending) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p:
		return err
	case <-time.After(time.Hour):
		t.Fatal("a request never ended")
		return nil
	}
}

func (p pending) ok(t *testing.T) {
	t.Helper()
	if err := p.wait(t); err != nil {
		t.Errorf("want an answer, got %v", err)
	}
}

// proven is a connection that has answered a request.
func (l *lab) proven(settings ...http2.Setting) *peer {
	l.t.Helper()
	first := l.start(0)
	p := l.accept(settings...)
	p.answer(p.request())
	first.ok(l.t)
	return p
}

func setting(id http2.SettingID, v uint32) http2.Setting { return http2.Setting{ID: id, Val: v} }

func TestNothingLeavesBeforeSETTINGSAndOneRequestUntilItsAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		a, b := l.start(0), l.start(0)
		p := l.acceptSilent()
		synctest.Wait()
		if _, ok := p.next().(*http2.WindowUpdateFrame); !ok || len(p.in) != 0 {
			t.Error("want nothing but a window before the server's SETTINGS")
		}
		p.settings()
		id := p.request()
		<-time.After(time.Second)
		if s := l.c.Stats(); s.Open != 1 || s.Waiting != 1 || l.dials != 1 {
			t.Errorf("want one request out and one waiting, got %+v", s)
		}
		p.answer(id)
		p.answer(p.request())
		a.ok(t)
		b.ok(t)
	})
}

// TestAResponseTellsTheWaitForAPlace starts what finds no place, gives it one a second later, and answers another second later.
func TestAResponseTellsTheWaitForAPlace(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven(setting(http2.SettingMaxConcurrentStreams, 1))
		waited := make([]time.Duration, 2)
		var all sync.WaitGroup
		for i := range waited {
			all.Add(1)
			r := &h2.Request{Head: head(t, "host", "/x"), Done: func(_ *h2.Request, res *h2.Response, err error) {
				if err == nil {
					waited[i] = res.Waited
				}
				all.Done()
			}}
			if err := l.c.Start(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		for range waited {
			id := p.request()
			<-time.After(time.Second)
			p.answer(id)
		}
		all.Wait()
		if waited[0] != 0 || waited[1] < time.Second || waited[1] >= 2*time.Second {
			t.Errorf("want none, and the second until the first was answered, got %s", waited)
		}
	}, func(o *h2.ClientOptions) { o.MaxConns = 1 })
}

// startEach starts n requests, each when the peer has the one before.
func (l *lab) startEach(n int, p *peer) (all []pending, ids []uint32) {
	for range n {
		all = append(all, l.start(0))
		ids = append(ids, p.request())
	}
	return all, ids
}

func TestALimitLoweredBelowWhatIsInFlightStopsNewRequests(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		all, ids := l.startEach(10, p)
		p.settings(setting(http2.SettingMaxConcurrentStreams, 3))
		until[*http2.SettingsFrame](p)
		all = append(all, l.start(0))
		for i := range 7 {
			p.answer(ids[i])
		}
		synctest.Wait()
		if s := l.c.Stats(); s.Open != 3 || s.Waiting != 1 {
			t.Errorf("want 3 open and 1 waiting, got %+v", s)
		}
		p.answer(ids[7])
		p.answer(ids[8])
		p.answer(ids[9])
		p.answer(p.request())
		for _, r := range all {
			r.ok(t)
		}
	}, func(o *h2.ClientOptions) { o.MaxConns = 1 })
}

func TestALimitOfZeroHoldsRequestsUntilItRises(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven(setting(http2.SettingMaxConcurrentStreams, 0), setting(http2.SettingMaxConcurrentStreams, 1))
		p.settings(setting(http2.SettingMaxConcurrentStreams, 0))
		until[*http2.SettingsFrame](p)
		r := l.start(0)
		<-time.After(5 * time.Second)
		p.settings(setting(http2.SettingMaxConcurrentStreams, 1))
		p.answer(p.request())
		r.ok(t)
	}, func(o *h2.ClientOptions) { o.MaxConns = 1 })
}

func TestBodiesWaitForWindowsAndGoOn(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven(setting(http2.SettingInitialWindowSize, 10))
		r := l.start(100)
		id := p.request()
		if d := until[*data](p); len(d.body) != 10 {
			t.Errorf("want 10 bytes, got %d", len(d.body))
		}
		_ = p.fr.WriteWindowUpdate(id, 5)
		if d := until[*data](p); len(d.body) != 5 {
			t.Errorf("want 5 more bytes, got %d", len(d.body))
		}
		p.settings(setting(http2.SettingInitialWindowSize, 4)) // 6 less than nothing for this stream
		_ = p.fr.WriteWindowUpdate(id, 6)
		synctest.Wait()
		_ = p.fr.WriteWindowUpdate(id, 1)
		if d := until[*data](p); len(d.body) != 1 {
			t.Errorf("want 1 byte, got %d", len(d.body))
		}
		p.settings(setting(http2.SettingInitialWindowSize, 1000))
		d := until[*data](p)
		if len(d.body) != 84 || !d.Flags.Has(http2.FlagDataEndStream) {
			t.Errorf("want the last 84 bytes, got %d, flags %v", len(d.body), d.Flags)
		}
		p.answer(id)
		r.ok(t)
	})
}

func TestTheConnectionsWindowHoldsEverybodyInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven(setting(http2.SettingInitialWindowSize, 1<<20), setting(http2.SettingMaxFrameSize, 1<<20))
		a, b := l.start(65_530), l.start(10)
		idA := p.request()
		until[*data](p)
		idB := p.request()
		if d := until[*data](p); d.StreamID != idB || len(d.body) != 5 {
			t.Errorf("want the 5 bytes that are left, got %d", len(d.body))
		}
		c := l.start(1)
		synctest.Wait()
		if s := l.c.Stats(); s.Waiting != 1 {
			t.Errorf("want a request without a window to wait, got %+v", s)
		}
		_ = p.fr.WriteWindowUpdate(0, 5)
		if d := until[*data](p); d.StreamID != idB || !d.Flags.Has(http2.FlagDataEndStream) {
			t.Errorf("want the rest of the second body")
		}
		_ = p.fr.WriteWindowUpdate(0, 5)
		idC := p.request()
		for _, id := range []uint32{idA, idB, idC} {
			p.answer(id)
		}
		a.ok(t)
		b.ok(t)
		c.ok(t)
	}, func(o *h2.ClientOptions) { o.MaxConns = 1 })
}

func TestAnAnswerBeforeTheWholeBodyEndsTheUpload(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven(setting(http2.SettingInitialWindowSize, 10))
		r := l.start(100)
		id := p.request()
		p.answer(id)
		r.ok(t)
		if f := until[*http2.RSTStreamFrame](p); f.StreamID != id {
			t.Errorf("want stream %d reset, got %d", id, f.StreamID)
		}
	})
}

func TestTheHeaderTableFollowsThePeer(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		// The framer's decoder allows 4096 and is told of each change by the client's own header blocks.
		for _, size := range []uint32{0, 4096, 60, 1 << 20, 0, 50} {
			p.settings(setting(http2.SettingHeaderTableSize, size))
			until[*http2.SettingsFrame](p)
			for range 3 {
				r := l.start(0)
				id := p.request()
				if p.got[id][":authority"] != "host" || p.got[id][":path"] != "/x" {
					t.Errorf("table of %d: got %v", size, p.got[id])
				}
				p.answer(id)
				r.ok(t)
			}
		}
	})
}

func TestGoAwayHandsBackWhatWasNotTouchedAndAwaitsTheRest(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		a, b := l.start(0), l.start(50)
		idA := p.request()
		p.request()
		_ = p.fr.WriteGoAway(idA, http2.ErrCodeNo, nil)
		q := l.accept()
		id := q.request()
		if d := until[*data](q); len(d.body) != 50 {
			t.Errorf("want the body again, got %d bytes", len(d.body))
		}
		q.answer(id)
		b.ok(t)
		<-time.After(5 * time.Second)
		p.answer(idA)
		a.ok(t)
		for f := p.next(); f != nil; f = p.next() { // the old one is closed
		}
		if s := l.c.Stats(); s.Resent != 1 || s.Conns != 1 {
			t.Errorf("want one request resent, got %+v", s)
		}
	})
}

func TestAConnectionThatEndsAfterGoAwaySaysWhy(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		a := l.start(0)
		id := p.request()
		_ = p.fr.WriteGoAway(id, http2.ErrCodeEnhanceYourCalm, []byte(`{"reason":"BadCertificate"}`))
		_ = p.conn.Close()
		var broken h2.ConnError
		if err := a.wait(t); !errors.As(err, &broken) || !broken.Remote || broken.Code != h2.EnhanceYourCalm ||
			!strings.Contains(broken.Text, "BadCertificate") || errors.Is(err, h2.ErrNotSent) {
			t.Errorf("want the server's words and an unknown fate, got %v", err)
		}
	})
}

func TestARefusedStreamIsSentAgainAfterARest(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		r := l.start(0)
		began := time.Now()
		for range 5 {
			_ = p.fr.WriteRSTStream(p.request(), http2.ErrCodeRefusedStream)
		}
		p.answer(p.request())
		r.ok(t)
		if s := l.c.Stats(); s.Resent != 5 || time.Since(began) < 300*time.Millisecond {
			t.Errorf("want 5 resends with growing rests, got %+v in %s", s, time.Since(began))
		}
		r = l.start(0)
		for range 17 {
			_ = p.fr.WriteRSTStream(p.request(), http2.ErrCodeRefusedStream)
		}
		if err := r.wait(t); !errors.Is(err, h2.ErrNotSent) {
			t.Errorf("want ErrNotSent in the end, got %v", err)
		}
	}, func(o *h2.ClientOptions) { o.MaxConns, o.Timeout = 1, time.Minute })
}

func TestAResetStreamIsNotSentAgain(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		for _, code := range []http2.ErrCode{http2.ErrCodeInternal, http2.ErrCodeCancel, http2.ErrCodeNo} {
			r := l.start(0)
			_ = p.fr.WriteRSTStream(p.request(), code)
			var broken h2.StreamError
			if err := r.wait(t); !errors.As(err, &broken) || uint32(broken.Code) != uint32(code) || errors.Is(err, h2.ErrNotSent) {
				t.Errorf("want a reset with %v, got %v", code, err)
			}
		}
	})
}

func TestABrokenConnectionLosesOnlyWhatHadLeft(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		a := l.start(0)
		p.request()
		_ = p.conn.Close()
		if err := a.wait(t); err == nil || errors.Is(err, h2.ErrNotSent) {
			t.Errorf("want an unknown fate, got %v", err)
		}
		b := l.start(0)
		q := l.accept()
		q.answer(q.request())
		b.ok(t)
	})
}

// broken is a connection of which writes fail once it is told so, as after a TCP reset: what had come before can still be read.
type broken struct {
	net.Conn
	gone atomic.Bool
}

func (b *broken) Write(p []byte) (int, error) {
	if b.gone.Load() {
		return 0, syscall.ECONNRESET
	}
	return b.Conn.Write(p)
}

// TestAnswersThatCameBeforeAWriteFailedAreHeard: a request whose answer is here must not be made twice.
func TestAnswersThatCameBeforeAWriteFailedAreHeard(t *testing.T) {
	var conns []*broken
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		answered, ids := l.startEach(5, p)
		conns[0].gone.Store(true)
		lost := l.start(0)
		synctest.Wait()
		elsewhere := l.start(0) // the connection takes nothing more
		for _, id := range ids {
			p.answer(id)
		}
		for _, r := range answered {
			r.ok(t)
		}
		q := l.accept()
		q.answer(q.request())
		elsewhere.ok(t)
		if err := lost.wait(t); err == nil || errors.Is(err, h2.ErrNotSent) { // read's patience has ended
			t.Errorf("want an unknown fate, got %v", err)
		}
	}, func(o *h2.ClientOptions) {
		dial := o.Dial
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			c, err := dial(ctx)
			conns = append(conns, &broken{Conn: c})
			return conns[len(conns)-1], err
		}
	})
}

func TestADeadPeerIsFoundByPing(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		began := time.Now()
		r := l.startUntil(0, began.Add(time.Minute))
		p.request()
		if f := until[*http2.PingFrame](p); f.IsAck() {
			t.Error("want a PING of the client's own")
		}
		synctest.Wait()
		other := l.start(0) // not there
		q := l.accept()
		q.answer(q.request())
		other.ok(t)
		if err := r.wait(t); !errors.Is(err, h2.ErrSilent) {
			t.Errorf("want a silent peer, got %v", err)
		}
		if d := time.Since(began); d < 6500*time.Millisecond || d > 7*time.Second {
			t.Errorf("want it found after a quarter of PingAfter, and PingTimeout, got %s", d)
		}
	})
}

func TestASlowAnswerIsAwaitedWhileThePeerAnswersPings(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		r := l.startUntil(0, time.Now().Add(time.Minute))
		id := p.request()
		for range 3 {
			_ = p.fr.WritePing(true, until[*http2.PingFrame](p).Data)
		}
		p.answer(id)
		r.ok(t)
	})
}

func TestAPingIsAnswered(t *testing.T) {
	bubble(t, func(_ *testing.T, l *lab) {
		p := l.proven()
		_ = p.fr.WritePing(false, [8]byte{1, 2, 3})
		for f := until[*http2.PingFrame](p); !f.IsAck() || f.Data != [8]byte{1, 2, 3}; f = until[*http2.PingFrame](p) {
		}
	})
}

func TestAPeerThatReadsNothingIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		p.stopReading()
		began := time.Now()
		all := []pending{l.startUntil(10_000, began.Add(time.Minute))}
		synctest.Wait() // the first one is being written
		for range 19 {
			all = append(all, l.startUntil(100, began.Add(time.Minute)))
		}
		q := l.accept()
		lost := 0
		go func() {
			for {
				f, ok := <-q.in
				if !ok {
					return
				}
				if h, ok := f.(*http2.MetaHeadersFrame); ok {
					q.answer(h.StreamID)
				}
			}
		}()
		for _, r := range all {
			if err := r.wait(t); err != nil {
				lost++
			}
		}
		if d := time.Since(began); d > 15*time.Second || lost != 1 {
			t.Errorf("want all but the first answered elsewhere, got %d lost after %s", lost, d)
		}
	})
}

// stopReading leaves what comes unread from now on.
func (p *peer) stopReading() {
	for range cap(p.in) - len(p.in) {
		p.in <- nil
	}
}

func TestAResetStreamCountsUntilThePeerHasSeenIt(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven(setting(http2.SettingMaxConcurrentStreams, 2))
		a, b := l.startUntil(0, time.Now().Add(time.Second)), l.startUntil(0, time.Now().Add(time.Second))
		p.request()
		p.request()
		for _, r := range []pending{a, b} {
			if err := r.wait(t); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, h2.ErrNotSent) {
				t.Errorf("want a timeout, got %v", err)
			}
		}
		c := l.start(0)
		until[*http2.RSTStreamFrame](p)
		ping := until[*http2.PingFrame](p)
		synctest.Wait()
		if s := l.c.Stats(); s.Waiting != 1 {
			t.Errorf("want the next request to wait, got %+v", s)
		}
		_ = p.fr.WritePing(true, ping.Data)
		p.answer(p.request())
		c.ok(t)
	}, func(o *h2.ClientOptions) { o.MaxConns = 1 })
}

func TestARequestThatWaitsEndsAtItsDeadlineUnsent(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven(setting(http2.SettingMaxConcurrentStreams, 1))
		a := l.start(0)
		id := p.request()
		b := l.startUntil(0, time.Now().Add(time.Second))
		if err := b.wait(t); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, h2.ErrNotSent) {
			t.Errorf("want an unsent timeout, got %v", err)
		}
		p.answer(id)
		a.ok(t)
	}, func(o *h2.ClientOptions) { o.MaxConns = 1 })
}

func TestIDsRunOutAndAnotherConnectionGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		h2.SkipIDs(l.c, 1<<31-3)
		a, b := l.start(0), l.start(0)
		if id := p.request(); id != 1<<31-3 {
			t.Errorf("want the last but one id, got %d", id)
		}
		if id := p.request(); id != 1<<31-1 {
			t.Errorf("want the last id, got %d", id)
		}
		c := l.start(0)
		q := l.accept()
		q.answer(q.request())
		c.ok(t)
		p.answer(1<<31 - 3)
		p.answer(1<<31 - 1)
		a.ok(t)
		b.ok(t)
		for f := p.next(); f != nil; f = p.next() { // closed
		}
	})
}

// TestBreachesEndTheConnection gives a client one malformed thing after another.
func TestBreachesEndTheConnection(t *testing.T) {
	t.Parallel()
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) func(p *peer, id uint32) {
		return func(p *peer, id uint32) {
			if stream == 99 {
				stream = id
			}
			_ = p.fr.WriteRawFrame(kind, flags, stream, []byte(payload))
		}
	}
	for name, c := range map[string]struct {
		do   func(p *peer, id uint32)
		code http2.ErrCode
	}{
		"data on an idle stream":          {raw(http2.FrameData, 0, 77, "x"), http2.ErrCodeProtocol},
		"data on stream 0":                {raw(http2.FrameData, 0, 0, "x"), http2.ErrCodeProtocol},
		"data padded beyond its end":      {raw(http2.FrameData, http2.FlagDataPadded, 99, "\x05x"), http2.ErrCodeProtocol},
		"headers on an idle stream":       {raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 77, "\x88"), http2.ErrCodeProtocol},
		"headers on a stream of its own":  {raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 2, "\x88"), http2.ErrCodeProtocol},
		"headers that cannot be decoded":  {raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 99, "\xff\xff\xff\xff"), http2.ErrCodeCompression},
		"a cut header block":              {raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 99, "\x40\x05ab"), http2.ErrCodeCompression},
		"a continuation of nothing":       {raw(http2.FrameContinuation, 0, 99, "\x88"), http2.ErrCodeProtocol},
		"a reset of an idle stream":       {raw(http2.FrameRSTStream, 0, 77, "\x00\x00\x00\x00"), http2.ErrCodeProtocol},
		"a short reset":                   {raw(http2.FrameRSTStream, 0, 99, "\x00"), http2.ErrCodeFrameSize},
		"settings on a stream":            {raw(http2.FrameSettings, 0, 99, ""), http2.ErrCodeProtocol},
		"settings of 5 bytes":             {raw(http2.FrameSettings, 0, 0, "12345"), http2.ErrCodeFrameSize},
		"an acknowledgement with content": {raw(http2.FrameSettings, http2.FlagSettingsAck, 0, "123456"), http2.ErrCodeFrameSize},
		"push is enabled":                 {raw(http2.FrameSettings, 0, 0, "\x00\x02\x00\x00\x00\x01"), http2.ErrCodeProtocol},
		"an initial window of 2^31":       {raw(http2.FrameSettings, 0, 0, "\x00\x04\x80\x00\x00\x00"), http2.ErrCodeFlowControl},
		"a frame size of 1":               {raw(http2.FrameSettings, 0, 0, "\x00\x05\x00\x00\x00\x01"), http2.ErrCodeProtocol},
		"a push promise":                  {raw(http2.FramePushPromise, 0x4, 99, "\x00\x00\x00\x02\x88"), http2.ErrCodeProtocol},
		"a ping on a stream":              {raw(http2.FramePing, 0, 99, "12345678"), http2.ErrCodeProtocol},
		"a ping of 7 bytes":               {raw(http2.FramePing, 0, 0, "1234567"), http2.ErrCodeFrameSize},
		"a goaway of 4 bytes":             {raw(http2.FrameGoAway, 0, 0, "1234"), http2.ErrCodeFrameSize},
		"a window update of nothing":      {raw(http2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x00"), http2.ErrCodeProtocol},
		"a window beyond 2^31":            {raw(http2.FrameWindowUpdate, 0, 0, "\x7f\xff\xff\xff"), http2.ErrCodeFlowControl},
		"a frame of 16,385 bytes":         {raw(http2.FrameData, 0, 99, strings.Repeat("x", 16_385)), http2.ErrCodeFrameSize},
		"a block that is interrupted": {func(p *peer, id uint32) {
			_ = p.fr.WriteRawFrame(http2.FrameHeaders, 0, id, []byte("\x88"))
			_ = p.fr.WriteRawFrame(http2.FramePing, 0, 0, []byte("12345678"))
		}, http2.ErrCodeProtocol},
		"a block without end": {func(p *peer, id uint32) {
			_ = p.fr.WriteRawFrame(http2.FrameHeaders, 0, id, []byte("\x88"))
			for range 5 {
				if p.fr.WriteRawFrame(http2.FrameContinuation, 0, id, bytes.Repeat([]byte{0x88}, 16_000)) != nil {
					return
				}
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"empty continuations": {func(p *peer, id uint32) {
			_ = p.fr.WriteRawFrame(http2.FrameHeaders, 0, id, []byte("\x88"))
			_ = p.fr.WriteRawFrame(http2.FrameContinuation, 0, id, nil)
		}, http2.ErrCodeEnhanceYourCalm},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *lab) {
				p := l.proven()
				r := l.start(0)
				c.do(p, p.request())
				var broken h2.ConnError
				if err := r.wait(t); !errors.As(err, &broken) || broken.Remote || uint32(broken.Code) != uint32(c.code) {
					t.Errorf("want %v, got %v", c.code, err)
				}
				if f := until[*goAway](p); f.code != c.code {
					t.Errorf("want GOAWAY with %v, got %v", c.code, f.code)
				}
				next := l.start(0)
				q := l.accept()
				q.answer(q.request())
				next.ok(t)
			})
		})
	}
}

// TestBreachesOfAStreamEndItAlone are errors that leave the connection whole.
func TestBreachesOfAStreamEndItAlone(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(p *peer, id uint32){
		"data before headers":        func(p *peer, id uint32) { _ = p.fr.WriteData(id, true, []byte("x")) },
		"no status":                  func(p *peer, id uint32) { p.headers(id, true, "x-a", "b") },
		"two statuses":               func(p *peer, id uint32) { p.headers(id, true, ":status", "200", ":status", "200") },
		"a status of two digits":     func(p *peer, id uint32) { p.headers(id, true, ":status", "20") },
		"a pseudo-field of requests": func(p *peer, id uint32) { p.headers(id, true, ":status", "200", ":path", "/") },
		"a status behind a field":    func(p *peer, id uint32) { p.headers(id, true, "x-a", "b", ":status", "200") },
		"a name in capitals":         func(p *peer, id uint32) { p.headers(id, true, ":status", "200", "X-A", "b") },
		"an interim answer that ends": func(p *peer, id uint32) {
			p.headers(id, true, ":status", "103")
		},
		"a second header": func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200")
			p.headers(id, false, ":status", "200")
		},
		"a window update of nothing": func(p *peer, id uint32) { _ = p.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)) },
		"a window beyond 2^31":       func(p *peer, id uint32) { _ = p.fr.WriteWindowUpdate(id, 1<<31-1) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, l *lab) {
				p := l.proven()
				r := l.start(0)
				id := p.request()
				do(p, id)
				var broken h2.StreamError
				if err := r.wait(t); !errors.As(err, &broken) {
					t.Errorf("want a stream error, got %v", err)
				}
				if f := until[*http2.RSTStreamFrame](p); f.StreamID != id {
					t.Errorf("want stream %d reset", id)
				}
				p.answer(id) // late: to be ignored
				_ = p.fr.WriteData(id, true, []byte("late"))
				next := l.start(0)
				p.answer(p.request())
				next.ok(t)
			})
		})
	}
}

func TestAHeaderBlockInPiecesIsOneBlock(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		r := l.start(0)
		id := p.request()
		_ = p.fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndStream, id, []byte("\x88\x40"))
		_ = p.fr.WriteContinuation(id, false, []byte("\x03x-"))
		_ = p.fr.WriteContinuation(id, true, []byte("a\x01b"))
		r.ok(t)
	})
}

func TestAWindowIsGivenBackToThePeer(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		for given := 0; given == 0; {
			r := l.start(0)
			id := p.request()
			p.headers(id, false, ":status", "200")
			for range 3 {
				_ = p.fr.WriteDataPadded(id, false, make([]byte, 16_000), make([]byte, 200))
			}
			_ = p.fr.WriteData(id, true, nil)
			r.ok(t)
			synctest.Wait()
			for len(p.in) > 0 {
				if f, ok := p.next().(*http2.WindowUpdateFrame); ok && f.StreamID == 0 {
					given += int(f.Increment)
				}
			}
		}
	})
}

func TestDialsBackOffAndThoseThatWaitAreTold(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		l.fail = errors.New("no route")
		began := time.Now()
		var all []pending
		for range 100 {
			all = append(all, l.start(0))
		}
		for _, r := range all {
			if err := r.wait(t); !errors.Is(err, l.fail) || !errors.Is(err, h2.ErrNotSent) {
				t.Errorf("want the dial's error, got %v", err)
			}
		}
		if d := time.Since(began); l.dials != 5 || d > 2*time.Second {
			t.Errorf("want 5 dials within 2 s, got %d in %s", l.dials, d)
		}
		for time.Since(began) < time.Minute { // what comes now waits for the next dial
			_ = l.start(0).wait(t)
		}
		if l.dials > 25 {
			t.Errorf("want dials 5 s apart in the end, got %d in a minute", l.dials)
		}
		l.fail = nil
		r := l.start(0)
		p := l.accept()
		p.answer(p.request())
		r.ok(t)
	})
}

func TestConnectionsThatBreakAtOnceBackOffToo(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		end := time.Now().Add(time.Minute)
		go func() {
			for time.Now().Before(end) {
				_ = l.startUntil(0, end).wait(t)
			}
		}()
		for time.Now().Before(end) {
			select {
			case p := <-l.peers:
				_ = p.conn.Close()
			case <-time.After(time.Second):
			}
		}
		if l.dials > 25 {
			t.Errorf("want a growing pause, got %d connections in a minute", l.dials)
		}
		<-time.After(time.Minute)
	})
}

func TestThePoolGrowsOneByOneAndShrinksAgain(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		var all []pending
		for range 35 {
			all = append(all, l.startUntil(0, time.Now().Add(time.Hour)))
		}
		var peers []*peer
		var held [][]uint32
		for range 3 {
			p := l.accept(setting(http2.SettingMaxConcurrentStreams, 10))
			p.answer(p.request())
			ids := []uint32{}
			for range 10 {
				ids = append(ids, p.request())
			}
			peers, held = append(peers, p), append(held, ids)
		}
		synctest.Wait()
		if s := l.c.Stats(); s.Open != 30 || s.Waiting != 2 || s.Conns != 3 || l.dials != 3 {
			t.Fatalf("want 3 full connections, got %+v", s)
		}
		for i, p := range peers {
			for _, id := range held[i] {
				p.answer(id)
			}
		}
		<-time.After(time.Second)
		peers[0].answer(held[0][9] + 2)
		peers[0].answer(held[0][9] + 4)
		for _, r := range all {
			r.ok(t)
		}
		for _, p := range peers {
			go p.answerPings()
		}
		<-time.After(time.Hour)
		if s := l.c.Stats(); s.Conns != 1 {
			t.Errorf("want one connection left, got %+v", s)
		}
	}, func(o *h2.ClientOptions) { o.MaxConns = 3 })
}

// answerPings keeps a connection alive, and forgets all else that comes.
func (p *peer) answerPings() {
	for f := range p.in {
		if ping, ok := f.(*http2.PingFrame); ok && !ping.IsAck() {
			_ = p.fr.WritePing(true, ping.Data)
		}
	}
}

func TestAServerThatSaysNothingIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		r := l.start(0)
		p := l.acceptSilent()
		if err := r.wait(t); !errors.Is(err, h2.ErrNotSent) {
			t.Errorf("want ErrNotSent, got %v", err)
		}
		_ = p
	})
}

func TestTooLargeAHeaderListStaysHere(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		p.settings(setting(http2.SettingMaxHeaderListSize, 100))
		until[*http2.SettingsFrame](p)
		if err := l.start(0).wait(t); !errors.Is(err, h2.ErrNotSent) {
			t.Errorf("want ErrNotSent, got %v", err)
		}
	})
}

func TestAFloodOfPingsEndsTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T, l *lab) {
		p := l.proven()
		p.stopReading()
		for range 150_000 {
			if p.fr.WritePing(false, [8]byte{}) != nil {
				return // given up
			}
		}
		t.Error("want an end to it")
	})
}
