package migrate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/vault"
)

// Log takes what is imported.
type Log interface {
	Append(ctx context.Context, say func(out *schemas.Out)) error
}

// Options say how to import. Now, By, Keyring and both checks must be set.
type Options struct {
	// DryRun decides and counts everything, and appends nothing.
	DryRun bool
	// Now is the time of every event, for the whole run.
	Now time.Time
	// By stands in the events as who did it.
	By string
	// App is the app of files whose names say none; empty: none.
	App string
	// Prefix is AirNotifier's appprefix, with which the databases' names begin.
	Prefix string
	// Policy says who gets new keys from /accesskeys/ of the imported apps.
	Policy pushv1.AccessKeyPolicy
	// UnboundKeys keeps the keys of sites as AirNotifier had them: each reaches all of the app.
	UnboundKeys bool
	// ProveSites lets a key broadcast to the site that its description names, where no other key names it.
	ProveSites bool
	// NoCredentials leaves the credentials out, so that nothing can be delivered: for a trial.
	NoCredentials bool
	// Keyring seals the credentials.
	Keyring *vault.Keyring
	// CheckAPNs and CheckFCM refuse credentials that cannot work. Their errors hold no secrets.
	CheckAPNs func(*pushv1.ApnsCredentials) error
	CheckFCM  func(*pushv1.FcmCredentials) error
	// Room refuses a further append of some megabytes; nil: there is always room.
	Room func() error
	// Progress is told how far a step is, often, by several goroutines in turn; nil: nobody.
	Progress func(step string, done, total int64)
}

// importer is one run.
type importer struct {
	log     Log
	state   *State
	options Options
	report  *Report
}

func newImporter(log Log, state *State, o Options) *importer {
	return &importer{log, state, o, newReport(o.DryRun)}
}

func (im *importer) progress(step string, done, total int64) {
	if im.options.Progress != nil {
		im.options.Progress(step, done, total)
	}
}

func (im *importer) room() error {
	if im.options.Room == nil {
		return nil
	}
	return im.options.Room()
}

// AirNotifier imports an export. state must be that of the log as it is now, and is used up.
//
// What was imported once is not said again, and what was decided in Campanile since stays: so a run that was cut short, by a kill too,
// goes on in the next one, and there is no file of its state. Concurrent traffic is fine; two imports at a time are not.
func AirNotifier(ctx context.Context, log Log, state *State, files []File, o Options) (*Report, error) {
	run := &airNotifier{importer: newImporter(log, state, o), apps: map[string]*application{}, keys: map[string]*appKeys{}}
	if err := run.readApplications(files); err != nil {
		return nil, err
	}
	if err := run.resolve(files); err != nil {
		return nil, err
	}
	if err := run.readKeys(); err != nil {
		return nil, err
	}
	if err := run.sayApps(ctx); err != nil {
		return nil, err
	}
	t := &tokens{importer: run.importer}
	for _, f := range run.files {
		if f.Collection == Tokens {
			t.sources = append(t.sources, run.tokenSource(f))
		}
	}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	run.report.sort()
	return run.report, nil
}

type airNotifier struct {
	*importer
	files []File // but applications; with their apps
	apps  map[string]*application
	keys  map[string]*appKeys
	out   []func(*schemas.Out)
}

func (a *airNotifier) readApplications(files []File) error {
	for _, f := range files {
		if f.Collection != Applications {
			continue
		}
		var read int64
		malformed, err := eachDocument(f.Path, &read, func(doc []byte) error {
			app, reason := readApplication(doc)
			switch {
			case reason != "":
				a.report.add("", whatApp, Rejected, reason, 1)
			case a.apps[app.config.App] != nil:
				a.report.add(app.config.App, whatApp, Folded, "the same short name in several records", 1)
			default:
				a.apps[app.config.App] = &app
			}
			return nil
		})
		if err != nil {
			return err
		}
		a.report.add("", whatApp, Rejected, reasonMalformed, malformed)
	}
	return nil
}

func (a *airNotifier) hasApp(name string) bool { return a.apps[name] != nil || a.state.HasApp(name) }

// resolve finds the app of each file of keys or tokens.
func (a *airNotifier) resolve(files []File) error {
	var errs []error
	for _, f := range files {
		if f.Collection == Applications {
			continue
		}
		if f.App == "" {
			f.App = a.appOf(f)
		}
		switch {
		case f.App == "" && f.Collection == Keys:
			errs = append(errs, fmt.Errorf("%s: %s", f.Path, noKeyApp))
		case f.App != "" && schemas.CheckApp(f.App) != nil:
			errs = append(errs, fmt.Errorf("%s: app %q: %w", f.Path, f.App, schemas.ErrApp))
		case f.App != "" && !a.hasApp(f.App):
			a.apps[f.App] = &application{config: &pushv1.AppConfigured{App: f.App}, left: []string{madeWithoutDoc}}
		}
		a.files = append(a.files, f)
	}
	return errors.Join(errs...)
}

// appOf is the app that a file's database belongs to: the one with that name, with the prefix or without. Where no app is known by
// that name, what the prefix leaves is its name; where there is no prefix either, the documents must say.
func (a *airNotifier) appOf(f File) string {
	stripped, prefixed := strings.CutPrefix(f.Database, a.options.Prefix)
	switch {
	case f.Database != "" && prefixed && a.hasApp(stripped):
		return stripped
	case f.Database != "" && a.hasApp(f.Database):
		return f.Database
	case a.options.App != "":
		return a.options.App
	case prefixed && a.options.Prefix != "" && stripped != "":
		return stripped
	case f.Collection == Keys && len(a.apps) == 1:
		for name := range a.apps {
			return name
		}
	}
	return ""
}

func (a *airNotifier) readKeys() error {
	for _, f := range a.files {
		if f.Collection != Keys {
			continue
		}
		keys := a.keys[f.App]
		if keys == nil {
			keys = &appKeys{app: f.App, seen: map[string]bool{}}
			a.keys[f.App] = keys
		}
		var read int64
		malformed, err := eachDocument(f.Path, &read, func(doc []byte) error {
			e, reason := readKey(f.App, doc, a.options.UnboundKeys, a.options.Now)
			if reason != "" {
				a.report.add(f.App, whatKey, Rejected, reason, 1)
				return nil
			}
			a.takeKey(keys, e)
			return nil
		})
		if err != nil {
			return err
		}
		a.report.add(f.App, whatKey, Rejected, reasonMalformed, malformed)
	}
	return nil
}

func (a *airNotifier) takeKey(keys *appKeys, e *pushv1.AccessKeyIssued) {
	switch was := a.state.keys[keyOf{e.App, e.KeyId}]; {
	case keys.seen[e.KeyId]:
		a.report.add(e.App, whatKey, Folded, sameKey, 1) // the first counts, as for AirNotifier, which looks for one
	case was.state == keyIssued:
		a.report.add(e.App, whatKey, Unchanged, reasonThere, 1)
	case was.state == keyRevoked:
		a.report.add(e.App, whatKey, Unchanged, revokedSince, 1)
	default:
		e.IssuedBy = a.options.By
		keys.issued = append(keys.issued, e)
	}
	keys.seen[e.KeyId] = true
}

// sayApps appends apps, credentials and keys; all of it is little.
func (a *airNotifier) sayApps(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(a.apps)) {
		if err := a.planApp(name, a.apps[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.keys)) {
		keys := a.keys[name]
		if a.options.ProveSites {
			keys.prove(a.state)
		}
		for _, e := range keys.issued {
			a.report.add(name, whatKey, Imported, keys.kindOf(e, a.options.ProveSites), 1)
			a.out = append(a.out, func(out *schemas.Out) { out.AccessKeyIssued(e) })
		}
	}
	if len(a.out) == 0 || a.options.DryRun {
		return nil
	}
	if err := a.room(); err != nil {
		return err
	}
	return a.log.Append(ctx, func(out *schemas.Out) { //nolint:wrapcheck // the log says it all
		for _, say := range a.out {
			say(out)
		}
	})
}

func (a *airNotifier) planApp(name string, app *application) error {
	for _, note := range app.left {
		result := LeftOut
		if note == madeWithoutDoc {
			result = Noted
		}
		a.report.add(name, whatApp, result, note, 1)
	}
	if a.state.HasApp(name) {
		a.report.add(name, whatApp, Unchanged, reasonThere, 1)
	} else {
		a.report.add(name, whatApp, Imported, "", 1)
		a.report.add(name, whatApp, Rejected, badBlockLine, app.badBlocks)
		e := app.config
		e.AccessKeyPolicy, e.ConfiguredAtUs, e.ConfiguredBy = a.options.Policy, a.options.Now.UnixMicro(), a.options.By
		a.out = append(a.out, func(out *schemas.Out) { out.AppConfigured(e) })
	}
	return a.planCredentials(name, app)
}

func (a *airNotifier) planCredentials(name string, app *application) error {
	there := 0
	if c := app.apns; c != nil {
		if a.takeCredentials(name, schemas.APNS, refusedAPNs, a.options.CheckAPNs(c)) {
			plain, err := c.MarshalVT()
			if err != nil {
				return fmt.Errorf("encode the credentials of %s: %w", name, err)
			}
			a.seal(name, schemas.APNS, plain)
		}
		there++
	}
	if c := app.fcm; c != nil {
		if a.takeCredentials(name, schemas.FCM, refusedFCM, a.options.CheckFCM(c)) {
			plain, err := c.MarshalVT()
			if err != nil {
				return fmt.Errorf("encode the credentials of %s: %w", name, err)
			}
			a.seal(name, schemas.FCM, plain)
		}
		there++
	}
	if there == 0 && !a.state.credentials[credentialsOf{name, schemas.APNS}] && !a.state.credentials[credentialsOf{name, schemas.FCM}] {
		a.report.add(name, whatCredentials, Noted, noCredentials, 1)
	}
	return nil
}

// takeCredentials reports whether credentials are to be set, and counts them.
func (a *airNotifier) takeCredentials(app string, t schemas.Transport, refused string, err error) bool {
	switch {
	case a.options.NoCredentials:
		a.report.add(app, whatCredentials, LeftOut, t.Word()+", for a trial", 1)
		return false
	case a.state.credentials[credentialsOf{app, t}]:
		a.report.add(app, whatCredentials, Unchanged, t.Word()+" "+reasonThere, 1)
		return false
	case err != nil:
		a.report.add(app, whatCredentials, Rejected, refused+err.Error(), 1)
		return false
	}
	a.report.add(app, whatCredentials, Imported, t.Word(), 1)
	return true
}

func (a *airNotifier) seal(app string, t schemas.Transport, plain []byte) {
	id := schemas.NewID()
	e := &pushv1.CredentialsSet{
		App: app, Transport: t, CredentialsId: id[:], Sealed: a.options.Keyring.Seal(plain, app, t.Word()),
		SetAtUs: a.options.Now.UnixMicro(), SetBy: a.options.By,
	}
	a.out = append(a.out, func(out *schemas.Out) { out.CredentialsSet(e) })
}

// tokenSource reads a file of tokens. A record that names another app than its file is of neither.
func (a *airNotifier) tokenSource(f File) source {
	return source{f.Path, func(_ context.Context, read *int64, say func(record) error) error {
		malformed, err := eachDocument(f.Path, read, func(doc []byte) error { return say(a.tokenRecord(f, doc)) })
		for range malformed {
			if err == nil {
				err = say(record{app: f.App, refused: reasonMalformed, result: Rejected})
			}
		}
		return err
	}}
}

func (a *airNotifier) tokenRecord(f File, doc []byte) record {
	r := record{app: f.App}
	var appname value
	members(doc, func(name string, raw []byte) {
		switch name {
		case "device":
			r.device = readValue(raw)
		case "token":
			r.token = readValue(raw)
		case "channel":
			r.channel = readValue(raw)
		case "appname":
			appname = readValue(raw)
		}
	})
	named := appname.string()
	switch {
	case f.App == "" && a.hasApp(named):
		r.app = named
	case f.App == "":
		r.refused, r.result = reasonNoApp, Rejected
	case named != "" && named != f.App:
		r.refused, r.result = reasonOtherApp, Rejected
	}
	return r
}
