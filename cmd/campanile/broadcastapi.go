package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/campanile-push/campanile/api"
)

// remote is where the API of a running campanile is, and as whom to use it.
type remote struct{ url, app, key, keyFile string }

func (r *remote) given() bool { return r.url != "" || r.key != "" || r.keyFile != "" }

// desk opens the API for an app; empty: the one of --app.
func (r *remote) desk(app string) (*apiDesk, error) {
	key := r.key
	if r.keyFile != "" {
		text, err := os.ReadFile(r.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--key-file: %w", err)
		}
		key = strings.TrimSpace(string(text))
	}
	if app == "" {
		app = r.app
	}
	if r.url == "" || key == "" || app == "" {
		return nil, errors.New("through the API: --url, --app and --key or --key-file are all needed")
	}
	return &apiDesk{&api.Client{URL: r.url, App: app, Key: key}}, nil
}

// apiDesk works through /api/v3.
type apiDesk struct{ client *api.Client }

func (d *apiDesk) send(ctx context.Context, _ string, body []byte, idempotencyKey string) (api.Accepted, error) {
	var request api.BroadcastRequest
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return api.Accepted{}, fmt.Errorf("broadcast: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return api.Accepted{}, errors.New("broadcast: more than one JSON object")
	}
	return d.client.SendBroadcast(ctx, idempotencyKey, request)
}

const apiPage = 200 // broadcasts; the API's largest page

func (d *apiDesk) list(ctx context.Context, _, state string, limit int) (all []api.Broadcast, err error) {
	before := ""
	for {
		page, err := d.client.ListBroadcasts(ctx, state, min(limit-len(all), apiPage), before)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Broadcasts...)
		if before = page.Next; before == "" || len(all) >= limit {
			return all, nil
		}
	}
}

func (d *apiDesk) show(ctx context.Context, id string) (api.Broadcast, error) {
	return d.client.GetBroadcast(ctx, id)
}

func (d *apiDesk) control(ctx context.Context, id string, o order) (err error) {
	switch o.verb {
	case "pause":
		_, err = d.client.PauseBroadcast(ctx, id, api.Reason{Reason: o.reason})
	case "resume":
		_, err = d.client.ResumeBroadcast(ctx, id)
	case "cancel":
		_, err = d.client.CancelBroadcast(ctx, id, api.Reason{Reason: o.reason})
	case "rate":
		_, err = d.client.ChangeRate(ctx, id, api.RateRequest{Rate: o.rate})
	}
	return err
}

// rewatchAfter is the pause before a stream that was cut is asked for again.
const rewatchAfter = time.Second

func (d *apiDesk) watch(ctx context.Context, id string, each func(api.Broadcast) error) error {
	x, err := d.client.GetBroadcast(ctx, id)
	if err != nil {
		return err
	}
	for {
		err = d.client.Watch(ctx, id, func(u api.Update) error {
			if u.State != x.State { // why it is paused or cancelled stands in the broadcast alone
				if now, err := d.client.GetBroadcast(ctx, id); err == nil {
					x = now
				}
			}
			x.State, x.Progress = u.State, u.Progress
			return each(x)
		})
		if !errors.Is(err, api.ErrCut) {
			return err
		}
		timer := time.NewTimer(rewatchAfter)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}
