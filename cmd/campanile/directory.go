package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// directory is what the topic apps says now: every app with its credentials and keys.
type directory struct {
	apps map[string]*appEntry
}

type appEntry struct {
	config      *pushv1.AppConfigured
	credentials map[schemas.Transport]*pushv1.CredentialsSet
	keys        map[string]*pushv1.AccessKeyIssued // those that were not revoked
}

// readDirectory replays apps to its end.
func readDirectory(ctx context.Context, log *eventlog.Log) (*directory, error) {
	d := &directory{apps: map[string]*appEntry{}}
	if err := replay(ctx, log, "directory", d.apply, schemas.Apps); err != nil {
		return nil, fmt.Errorf("read the apps: %w", err)
	}
	return d, nil
}

// replay feeds apply with topics from their beginnings to their ends as they stand now.
func replay(ctx context.Context, log *eventlog.Log, name string, apply func(schemas.Record) error, topics ...schemas.Topic) error {
	r := follow(ctx, log, name, apply, topics...)
	defer r.end()
	select {
	case <-r.CaughtUp():
		return nil
	case <-r.ended:
		return r.err
	}
}

// reader follows topics beside its caller, until end.
type reader struct {
	*eventlog.Following
	stop  context.CancelFunc
	ended chan struct{}
	err   error // of the following; to be read when ended is closed
}

func follow(ctx context.Context, log *eventlog.Log, name string, apply func(schemas.Record) error, topics ...schemas.Topic) *reader {
	ctx, stop := context.WithCancel(ctx)
	r := &reader{Following: log.Follow(name, apply, topics...), stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = r.Run(ctx)
	}()
	return r
}

// end stops reading; nothing is applied after it returns.
func (r *reader) end() {
	r.stop()
	<-r.ended
}

func (d *directory) entry(app string) *appEntry {
	e := d.apps[app]
	if e == nil {
		e = &appEntry{credentials: map[schemas.Transport]*pushv1.CredentialsSet{}, keys: map[string]*pushv1.AccessKeyIssued{}}
		d.apps[app] = e
	}
	return e
}

func (d *directory) apply(r schemas.Record) error {
	if r.Tombstone() {
		return nil
	}
	event, err := r.Event()
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case *pushv1.AppConfigured:
		d.entry(e.App).config = e
	case *pushv1.CredentialsSet:
		d.entry(e.App).credentials[e.Transport] = e
	case *pushv1.AccessKeyIssued:
		d.entry(e.App).keys[e.KeyId] = e
	case *pushv1.AccessKeyRevoked:
		delete(d.entry(e.App).keys, e.KeyId)
	}
	return nil
}

// find returns an app that was configured, or says how to make it.
func (d *directory) find(app string) (*appEntry, error) {
	e := d.apps[app]
	if e == nil || e.config == nil {
		return nil, fmt.Errorf("there is no app %q: `campanile app create %s` makes it, `campanile app list` shows what is there", app, app)
	}
	return e, nil
}

// names are the configured apps, sorted.
func (d *directory) names() []string {
	var names []string
	for name, e := range d.apps {
		if e.config != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
