package simulator_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/campanile-push/campanile/simulator"
)

func withRule(rule simulator.Rule) func(o *simulator.Options) {
	return with(simulator.Scenario{Rules: []simulator.Rule{rule}})
}

func withConns(c simulator.ConnScenario) func(o *simulator.Options) {
	return with(simulator.Scenario{APNS: simulator.APNSScenario{Connections: c}, FCM: simulator.FCMScenario{Connections: c}})
}

func TestGoAwayLeavesOutWhatItDidNotProcess(t *testing.T) {
	t.Parallel()
	r := setup(t, withRule(simulator.Rule{Every: 3, Fault: simulator.FaultUnprocessed}))
	w := r.wire(r.APNSURL())
	for i := range uint32(6) {
		w.push(1+2*i, hexToken(int(i)))
	}
	w.flush()
	if last, code, _ := w.goAway(); last != 3 || code != http2.ErrCodeNo {
		t.Errorf("want GOAWAY behind stream 3, got %d, %v", last, code)
	}
	if w.status(1) != "200" || w.status(3) != "200" {
		t.Error("want the first two answered")
	}
	w.closed()
	if s := r.Stats(); s.Ledger.Accepted != 2 || s.Cut != 0 || s.InFlight != 0 {
		t.Errorf("want two recorded and none cut, got %+v", s)
	}
}

func TestResetStreamsSayWhy(t *testing.T) {
	t.Parallel()
	for fault, code := range map[simulator.Fault]http2.ErrCode{
		simulator.FaultRST: http2.ErrCodeInternal, simulator.FaultRSTRefused: http2.ErrCodeRefusedStream, simulator.FaultRSTCancel: http2.ErrCodeCancel, simulator.FaultRSTAfter: http2.ErrCodeInternal,
	} {
		r := setup(t, withRule(simulator.Rule{Limit: 1, Fault: fault}))
		w := r.wire(r.APNSURL())
		w.push(1, goodHex)
		w.push(3, goodHex)
		w.flush()
		if f := until(w, func(*http2.RSTStreamFrame) bool { return true }); f.StreamID != 1 || f.ErrCode != code {
			t.Errorf("%s: want %v, got %v", fault, code, f)
		}
		if w.status(3) != "200" {
			t.Errorf("%s: want the next push answered", fault)
		}
		accepted := int64(1)
		if fault == simulator.FaultRSTAfter {
			accepted = 2
		}
		if s := r.Stats(); s.Ledger.Accepted != accepted || s.Ledger.Unanswered != accepted-1 || s.Cut != accepted-1 {
			t.Errorf("%s: want %d recorded, got %+v", fault, accepted, s)
		}
	}
}

func TestTheStreamLimitOpensWithGoodCredentials(t *testing.T) {
	t.Parallel()
	r := setup(t, withConns(simulator.ConnScenario{FirstStreams: 1, Streams: 50}))
	w := r.wire(r.APNSURL())
	w.flush()
	if n := w.streams(); n != 1 {
		t.Fatalf("want one stream at first, got %d", n)
	}
	good := r.bearer
	r.bearer = "bearer a.b.c"
	w.push(1, goodHex)
	w.flush()
	if got := w.status(1); got != "403" {
		t.Fatalf("want 403, got %s", got)
	}
	r.bearer = good
	w.push(3, goodHex)
	w.flush()
	if n := w.streams(); n != 50 {
		t.Errorf("want 50 streams after a good push and not before, got %d", n)
	}
}

func TestRefusalsShrinkTheStreamLimit(t *testing.T) {
	t.Parallel()
	r := setup(t, withConns(simulator.ConnScenario{Streams: 40, Shrink: true}))
	dead := "0badcafe041000" + goodHex[14:]
	w := r.wire(r.APNSURL())
	w.flush()
	_ = w.streams()
	var got []uint32
	for i, token := range []string{goodHex, "zz", "zz", dead, goodHex} {
		w.push(uint32(1+2*i), token, "apns-push-type", "alert")
		w.flush()
		if i == 1 || i == 2 || i == 3 || i == 4 {
			got = append(got, w.streams())
			w.must(w.WriteSettingsAck())
		}
	}
	if want := []uint32{20, 10, 20, 40}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("want halves after each refusal, and twice as much after a success or 410: %v, got %v", want, got)
	}
}

func TestAClientAboveTheStreamLimitIsSentAway(t *testing.T) {
	t.Parallel()
	late := latency(t, "10s")
	r := setup(t, with(simulator.Scenario{Latency: late, APNS: simulator.APNSScenario{Connections: simulator.ConnScenario{Streams: 2}}}))
	w := r.wire(r.APNSURL())
	w.must(w.WriteSettingsAck()) // until then the limit is not in force
	for i := range uint32(3) {
		w.push(1+2*i, hexToken(int(i)))
	}
	w.flush()
	if last, code, text := w.goAway(); last != 3 || code != http2.ErrCodeEnhanceYourCalm || text != "Maximum active streams violated" {
		t.Errorf("got GOAWAY behind %d, %v, %q", last, code, text)
	}
	if s := r.Stats(); s.Violations["too_many_streams"] != 1 || s.Ledger.Accepted != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestAnswersWaitForTheClientsWindow(t *testing.T) {
	t.Parallel()
	r := setup(t)
	w := r.wire(r.FCMURL(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
	w.send(1, messageTo(fcmToken, goodID))
	w.flush()
	if w.status(1) != "200" {
		t.Fatal("want the header at once")
	}
	body := ""
	for part := 0; ; part++ {
		d := until(w, func(*http2.DataFrame) bool { return true })
		body += string(d.Data())
		if d.StreamEnded() {
			break
		}
		if len(d.Data()) > 10+25*part {
			t.Fatalf("%d bytes in a window of 10 and %d times 25", len(body), part)
		}
		w.must(w.WriteWindowUpdate(1, 25))
		w.flush()
	}
	if !strings.Contains(body, `"name"`) || r.Stats().InFlight != 0 {
		t.Errorf("got %q, %+v", body, r.Stats())
	}
}

func TestWindowsAreKeptSmallAndFilledUp(t *testing.T) {
	t.Parallel()
	r := setup(t, withConns(simulator.ConnScenario{Window: 1000, ConnWindow: 65535}))
	w := r.wire(r.APNSURL())
	body := payloadOf(4000)
	w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.apnsHead(goodHex), EndHeaders: true}))
	for left, window := body, 1000; len(left) > 0; {
		n := min(window, len(left))
		w.must(w.WriteData(1, n == len(left), left[:n]))
		w.flush()
		left, window = left[n:], 0
		if len(left) > 0 {
			window = int(until(w, func(f *http2.WindowUpdateFrame) bool { return f.StreamID == 1 }).Increment)
		}
	}
	if got := w.status(1); got != "200" {
		t.Errorf("want 200, got %s", got)
	}
	w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: w.apnsHead(goodHex), EndHeaders: true}))
	w.must(w.WriteData(3, true, body))
	w.flush()
	if f := until(w, func(*http2.RSTStreamFrame) bool { return true }); f.ErrCode != http2.ErrCodeFlowControl {
		t.Errorf("want FLOW_CONTROL_ERROR above the window, got %v", f)
	}
}

func TestAStarvedClientGetsItsWindowLater(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{time.Hour, 20 * time.Millisecond} {
		r := setup(t, with(simulator.Scenario{
			Rules: []simulator.Rule{{Limit: 1, Fault: simulator.FaultStarve, Pause: simulator.Duration(pause)}},
			APNS:  simulator.APNSScenario{Connections: simulator.ConnScenario{Window: 100}},
		}))
		w := r.wire(r.APNSURL())
		w.push(1, goodHex)
		w.flush()
		if w.status(1) != "200" {
			t.Error("want the push answered")
		}
		w.must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: w.apnsHead(goodHex), EndHeaders: true}))
		w.must(w.WriteData(3, false, payloadOf(160)[:100]))
		w.must(w.WritePing(false, [8]byte{1}))
		w.flush()
		if pause == time.Hour {
			for { // what comes before the PING's answer came at once
				frame, err := w.ReadFrame()
				w.must(err)
				if _, ok := frame.(*http2.WindowUpdateFrame); ok {
					t.Fatal("want no window for an hour")
				}
				if _, ok := frame.(*http2.PingFrame); ok {
					break
				}
			}
			continue
		}
		until(w, func(f *http2.WindowUpdateFrame) bool { return f.StreamID == 3 })
		w.must(w.WriteData(3, true, payloadOf(160)[100:]))
		w.flush()
		if w.status(3) != "200" {
			t.Error("want the starved push answered in the end")
		}
	}
}

func TestAnIdleConnectionIsClosed(t *testing.T) {
	t.Parallel()
	r := setup(t, withConns(simulator.ConnScenario{IdleClose: simulator.Duration(30 * time.Millisecond)}))
	w := r.wire(r.APNSURL())
	w.push(1, goodHex)
	w.flush()
	if w.status(1) != "200" {
		t.Error("want the push answered")
	}
	if last, code, text := w.goAway(); last != 1 || code != http2.ErrCodeNo || text != `{"reason":"IdleTimeout"}` {
		t.Errorf("got GOAWAY behind %d, %v, %q", last, code, text)
	}
	w.closed()
}

func TestShutdownAndBadTokensEndTheConnection(t *testing.T) {
	t.Parallel()
	r := setup(t, withConns(simulator.ConnScenario{BadTokens: 3}))
	for token, pushes := range map[string]int{"0badcafe150300" + goodHex[14:]: 1, "0badcafe040000" + goodHex[14:]: 3} {
		w := r.wire(r.APNSURL())
		for i := range uint32(pushes) {
			w.push(1+2*i, token)
		}
		w.flush()
		for i := range uint32(pushes) {
			if got := w.status(1 + 2*i); got != "503" && got != "400" {
				t.Errorf("got %s", got)
			}
		}
		if last, code, text := w.goAway(); last != uint32(2*pushes-1) || code != http2.ErrCodeNo || text != `{"reason":"Shutdown"}` {
			t.Errorf("got GOAWAY behind %d, %v, %q", last, code, text)
		}
		w.closed()
	}
}

func TestConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	for _, server := range []string{simulator.ServerFrames, simulator.ServerNetHTTP} {
		r := setup(t, withConns(simulator.ConnScenario{Max: 2}), func(o *simulator.Options) { o.Server = server })
		first, second := r.wire(r.APNSURL()), r.wire(r.APNSURL())
		if w, err := r.dialWire(r.APNSURL()); err == nil {
			t.Errorf("%s: want the third connection reset, got %v", server, w.conn.RemoteAddr())
		}
		first.must(first.conn.Close())
		if !r.waitFor(func() bool { return r.Stats().Open < 2 }) {
			t.Fatalf("%s: the closed connection stays", server)
		}
		r.wire(r.APNSURL())
		second.must(second.conn.Close())
	}
}

func TestTLSFailsWhenTold(t *testing.T) {
	t.Parallel()
	for _, server := range []string{simulator.ServerFrames, simulator.ServerNetHTTP} {
		r := setup(t, func(o *simulator.Options) { o.Server = server })
		if err := r.Client().FailTLS(t.Context(), simulator.APNS, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := r.dialWire(r.APNSURL()); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: want an alert, got %v", server, err)
		}
		if got := r.send(messageTo(fcmToken, goodID)); got.status != http.StatusOK {
			t.Errorf("%s: want FCM untouched, got %d", server, got.status)
		}
	}
}

func TestNetHTTPRefusesWhatOnlyFramesCan(t *testing.T) {
	t.Parallel()
	r := setup(t, func(o *simulator.Options) { o.Server = simulator.ServerNetHTTP })
	err := r.Client().SetRules(t.Context(), simulator.Rule{Fault: simulator.FaultStarve})
	if err == nil || !strings.Contains(err.Error(), "frames") {
		t.Errorf("want the rule refused, got %v", err)
	}
	err = r.Client().SetScenario(t.Context(), simulator.Scenario{APNS: simulator.APNSScenario{Connections: simulator.ConnScenario{FirstStreams: 1}}})
	if err == nil || !strings.Contains(err.Error(), "frames") {
		t.Errorf("want the scenario refused, got %v", err)
	}
}
