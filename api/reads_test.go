package api_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// desk is a served view, as an app's key sees it.
type desk struct {
	*view
	client api.Client
	stop   func()
}

func newDesk(t *testing.T, mine func(string) bool, o api.ReadsOptions) *desk {
	t.Helper()
	v := newView(t)
	if o.Every == 0 {
		o.Every = time.Millisecond
	}
	reads := api.NewReads(o, v.Broadcasts)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reads.Serve(w, r, "moodle", mine) }))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- reads.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
		server.Close()
	})
	return &desk{v, api.Client{URL: server.URL, App: "moodle", Key: "k", HTTP: server.Client()}, stop}
}

func (d *desk) get(path string, header ...string) (*http.Response, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.client.URL+api.Prefix+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := d.client.HTTP.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res, string(body)
}

func (d *desk) end(id schemas.ID) {
	d.t.Helper()
	d.say(func(out *schemas.Out) {
		out.BroadcastEnded(&pushv1.BroadcastEnded{
			BroadcastId: id[:], App: "moodle", EndedAtUs: d.now.UnixMicro(), Counts: []*pushv1.TransportCounts{{Transport: schemas.FCM, Emitted: 5, Accepted: 5}},
		})
	})
}

func TestAReaderSeesItsOwnAppAndKeysAlone(t *testing.T) {
	t.Parallel()
	d := newDesk(t, func(id string) bool { return id == "k1" }, api.ReadsOptions{})
	d.request(named(1), nil)
	d.request(named(2), func(e *pushv1.BroadcastRequested) { e.KeyId = "k2" })
	d.request(named(3), func(e *pushv1.BroadcastRequested) { e.App = "other" })
	list, err := d.client.ListBroadcasts(t.Context(), "", 0, "")
	if err != nil || len(list.Broadcasts) != 1 || list.Broadcasts[0].ID != named(1).String() || list.Next != "" {
		t.Errorf("list: %+v %v", list, err)
	}
	for id, status := range map[string]int64{
		named(2).String(): 404, named(3).String(): 404, named(4).String(): 404, "nonsense": 404,
	} {
		_, err := d.client.GetBroadcast(t.Context(), id)
		if p, ok := errors.AsType[*api.Problem](err); !ok || p.Status != status || p.Type != "https://campanile-push.org/problems/no-broadcast" {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := d.client.GetProgress(t.Context(), id); err == nil {
			t.Errorf("the progress of %s was told", id)
		}
		if err := d.client.Watch(t.Context(), id, func(api.Update) error { return nil }); err == nil || errors.Is(err, api.ErrCut) {
			t.Errorf("the events of %s were told: %v", id, err)
		}
	}
}

func TestListsComeInPages(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil, api.ReadsOptions{})
	for n := range byte(5) {
		d.now = start.Add(time.Duration(n) * time.Second)
		d.request(named(n+1), nil)
	}
	var got []byte
	before := ""
	for {
		page, err := d.client.ListBroadcasts(t.Context(), "running", 2, before)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range page.Broadcasts {
			id, _ := schemas.ParseID(b.ID)
			got = append(got, id[0])
		}
		if before = page.Next; before == "" {
			break
		}
	}
	if string(got) != "\x05\x04\x03\x02\x01" {
		t.Errorf("got %v", got)
	}
	for _, query := range []string{"limit=0", "limit=201", "limit=x", "before=x", "state=x"} {
		if res, body := d.get("/broadcasts?" + query); res.StatusCode != http.StatusBadRequest || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", query, res.StatusCode, body)
		}
	}
	if res, body := d.get("/broadcasts/" + named(1).String() + "/elsewhere"); res.StatusCode != http.StatusNotFound {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestAnAnswerThatDidNotChangeIsNotSentAgain(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil, api.ReadsOptions{})
	id := named(1)
	d.request(id, nil)
	for _, path := range []string{"/broadcasts", "/broadcasts/" + id.String(), "/broadcasts/" + id.String() + "/progress"} {
		res, _ := d.get(path)
		tag := res.Header.Get("ETag")
		if again, body := d.get(path, "If-None-Match", `"x", W/`+tag); again.StatusCode != http.StatusNotModified || body != "" || tag == "" {
			t.Errorf("%s: %d %s", path, again.StatusCode, body)
		}
		d.move(id, schemas.FCM, d.getProgress(id)+1, false)
		if again, _ := d.get(path, "If-None-Match", tag); again.StatusCode != http.StatusOK {
			t.Errorf("%s changed, and is %d", path, again.StatusCode)
		}
	}
}

func (d *desk) getProgress(id schemas.ID) int64 {
	b, _ := d.Get(id)
	return b.Progress.Expanded
}

func TestEventsTellEveryChangeToTheEnd(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil, api.ReadsOptions{})
	id := named(1)
	d.request(id, nil)
	var seen []int64
	last := ""
	err := d.client.Watch(t.Context(), id.String(), func(u api.Update) error {
		seen, last = append(seen, u.Progress.Expanded), u.State
		switch len(seen) {
		case 1, 2:
			d.move(id, schemas.FCM, int64(len(seen)), false)
		case 3:
			d.end(id)
		}
		return nil
	})
	if err != nil || last != api.StateEnded || len(seen) != 4 || seen[0] != 0 || seen[1] != 1 || seen[2] != 2 || seen[3] != 5 {
		t.Errorf("saw %v, then %s, %v", seen, last, err)
	}
	d.end(named(2)) // ended before anybody looked
	n := 0
	if err := d.client.Watch(t.Context(), named(2).String(), func(api.Update) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d events, %v", n, err)
	}
}

func TestStreamsEndWithTheProcess(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil, api.ReadsOptions{KeepAlive: 2 * time.Millisecond})
	d.request(named(1), nil)
	err := d.client.Watch(t.Context(), named(1).String(), func(api.Update) error { d.stop(); return nil })
	if !errors.Is(err, api.ErrCut) {
		t.Errorf("want %v, got %v", api.ErrCut, err)
	}
}

func TestASilentStreamIsKeptAlive(t *testing.T) {
	t.Parallel()
	d := newDesk(t, nil, api.ReadsOptions{KeepAlive: 2 * time.Millisecond})
	d.request(named(1), nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.client.URL+api.Prefix+"/broadcasts/"+named(1).String()+"/progress", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	res, err := d.client.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text := ""
	buf := make([]byte, 4096)
	for len(text) < 4 || text[len(text)-4:] != "\n:\n\n" {
		n, err := res.Body.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		text += string(buf[:n])
	}
}

func TestWhoHasTheAnswerFindsTheBroadcast(t *testing.T) {
	t.Parallel()
	var d *desk
	d = newDesk(t, nil, api.ReadsOptions{CatchUp: func(context.Context) error {
		d.request(named(1), nil)
		return nil
	}})
	if b, err := d.client.GetBroadcast(t.Context(), named(1).String()); err != nil || b.App != "moodle" {
		t.Errorf("%+v %v", b, err)
	}
}
