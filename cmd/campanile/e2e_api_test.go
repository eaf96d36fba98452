package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/vault"
)

// TestTheDocumentIsWhatIsServed compares the OpenAPI document with the routes.
func TestTheDocumentIsWhatIsServed(t *testing.T) {
	t.Parallel()
	var doc struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal(api.Document, &doc); err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, methods := range doc.Paths {
		for method := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(documented)
	hasher, err := vault.ParseHasher(vault.NewHashKey())
	if err != nil {
		t.Fatal(err)
	}
	server := ingest.New(ingest.Options{Document: api.Document}, nil, nil, hasher, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if diff := cmp.Diff(documented, server.RoutesV3()); diff != "" {
		t.Errorf("(-documented +served):\n%s", diff)
	}
}

// TestTheClientSpeaksToTheHandlers drives every operation of the API through the generated client, and the commands through the API.
func TestTheClientSpeaksToTheHandlers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t)
	w.app(t, app)
	key := w.key(t, app, "all")
	c := &api.Client{URL: u.info.API, App: app, Key: key, HTTP: &http.Client{Transport: &strict{t: t}}}
	ctx := t.Context()
	check := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}

	registered, err := c.PutToken(ctx, "phone/1", api.TokenRequest{Transport: "fcm", Channels: []string{"a", "b"}, Locale: "de"})
	check("register", err)
	if registered.Status != "registered" || len(registered.Channels) != 2 {
		t.Errorf("%+v", registered)
	}
	check("subscribe", c.Subscribe(ctx, "staff room", "phone/1"))
	check("unsubscribe", c.Unsubscribe(ctx, "b", "phone/1"))
	_, err = c.PutToken(ctx, "phone-2", api.TokenRequest{Transport: "fcm", Replaces: "phone/1"})
	check("rotate", err)
	note := api.NotificationRequest{Token: "phone-2", Transport: "fcm", Message: api.Message{Title: "Hello", Body: "you"}}
	first, err := c.SendNotification(ctx, "n1", note)
	check("notify", err)
	again, err := c.SendNotification(ctx, "n1", note)
	check("notify again", err)
	if first.ID != again.ID {
		t.Errorf("the same key gave %s and %s", first.ID, again.ID)
	}

	dry, err := c.SendBroadcast(ctx, "", api.BroadcastRequest{Channels: []string{"a", "staff room"}, DryRun: true})
	check("dry run", err)
	if !dry.DryRun || dry.ID != "" {
		t.Errorf("%+v", dry)
	}
	request := api.BroadcastRequest{Channels: []string{"a", "staff room"}, Message: &api.Message{Text: "Hello all"}}
	sent, err := c.SendBroadcast(ctx, "b1", request)
	check("broadcast", err)
	var states []string
	check("watch", c.Watch(ctx, sent.ID, func(u api.Update) error { states = append(states, u.State); return nil }))
	if len(states) == 0 || states[len(states)-1] != api.StateEnded {
		t.Errorf("states %q", states)
	}
	b, err := c.GetBroadcast(ctx, sent.ID)
	check("get", err)
	if b.Progress.Delivered != 1 || b.Progress.Expanded != 1 { // the one phone is in both channels, and its first token is gone
		t.Errorf("delivered %+v", b.Progress)
	}
	p, err := c.GetProgress(ctx, sent.ID)
	check("progress", err)
	if diff := cmp.Diff(b.Progress, p.Progress); diff != "" {
		t.Errorf("(-broadcast +progress):\n%s", diff)
	}
	list, err := c.ListBroadcasts(ctx, "ended", 10, "")
	check("list", err)
	if len(list.Broadcasts) != 1 || list.Broadcasts[0].ID != sent.ID {
		t.Errorf("%+v", list)
	}

	// The commands, through the API.
	keyFile := filepath.Join(w.dir, "api.key")
	writeFile(t, keyFile, key+"\n")
	through := []string{"--url", u.info.API, "--key-file", keyFile, "--app", app}
	id := w.run(t, append([]string{"broadcast", "send", app, "--channel", "a", "--text", "later", "--send-at", "2027-01-01T00:00:00Z"}, through...)...)
	if x := w.show(t, id, through...); x.State != api.StateScheduled || x.Progress.LimitedBy != api.LimitSendAt {
		t.Errorf("%+v", x)
	}
	w.run(t, append([]string{"broadcast", "pause", id, "--reason", "why not"}, through...)...)
	eventually(t, time.Minute, "it is paused", func() bool {
		x := w.show(t, id, through...)
		return x.State == api.StatePaused && x.Paused.Reason == "why not"
	})
	w.run(t, append([]string{"broadcast", "rate", id, "7"}, through...)...)
	w.run(t, append([]string{"broadcast", "resume", id}, through...)...)
	eventually(t, time.Minute, "its rate is set", func() bool { return w.show(t, id, through...).Rate == 7 })
	w.run(t, append([]string{"broadcast", "cancel", id}, through...)...)
	if out := w.run(t, append([]string{"broadcast", "watch", id}, through...)...); !strings.Contains(out, "cancelled: 0 sent") {
		t.Errorf("watch printed %q", out)
	}
	if out := w.run(t, append([]string{"broadcast", "list"}, through...)...); !strings.Contains(out, id) || !strings.Contains(out, sent.ID) {
		t.Errorf("list printed %q", out)
	}
	w.refused(t, append([]string{"broadcast", "resume", id}, through...)...)
	check("delete", c.DeleteToken(ctx, "phone-2"))
	u.stop(t)
}

// strict checks that each answer has the members that the document names and no others: the types are the document's, by a test of
// theirs.
type strict struct{ t *testing.T }

func (s *strict) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		return res, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return nil, err
	}
	var into any
	switch path := strings.TrimPrefix(req.URL.Path, api.Prefix); {
	case strings.HasPrefix(path, "/tokens/"):
		into = &api.RegisteredToken{}
	case path == "/notifications":
		into = &api.AcceptedNotification{}
	case path == "/broadcasts" && req.Method == http.MethodPost:
		into = &api.Accepted{}
	case path == "/broadcasts":
		into = &api.BroadcastList{}
	case strings.HasSuffix(path, "/progress"):
		into = &api.Update{}
	case req.Method == http.MethodGet:
		into = &api.Broadcast{}
	default:
		into = &api.Controlled{}
	}
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		s.t.Errorf("%s %s answered what its document does not say: %v\n%s", req.Method, req.URL.Path, err, body)
	}
	res.Body = io.NopCloser(strings.NewReader(string(body)))
	return res, nil
}
