package main

import (
	"context"
	"crypto/md5" //nolint:gosec // the channel of a site is md5(wwwroot), by Moodle's convention
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/simulator"
)

const (
	demoApp           = "commoodlemoodlemobile"
	demoSites         = 5
	demoPhonesPerSite = 2000
	demoNotifications = 1000
	demoClients       = 64
	demoPatience      = 2 * time.Minute
)

// demo is a made-up Moodle network on a running process: it claims keys as sites do, registers their phones, notifies and broadcasts, and
// shows what became of it. It can run again on the same data.
type demo struct {
	p         *process
	simulator *simulator.Simulator
	url       string
	out       io.Writer
	plain     bool // the output is no terminal: no bars
	env       demoEnv
}

// demoEnv are the keys that the demonstration made, for scripts: demo.env in the data folder.
type demoEnv struct {
	all, phone, none string
	sites            []string // by site; the first is KEY_SITE
}

func siteURL(n int) string { return fmt.Sprintf("https://campus%d.example.org", n+1) }

func siteChannel(n int) string {
	sum := md5.Sum([]byte(siteURL(n))) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

func (d *demo) run(ctx context.Context) error {
	d.plain = !isTerminal(d.out)
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"create the app, its credentials and keys", d.create},
		{"sites ask for their keys", d.claim},
		{"register phones", d.register},
		{"notify", d.notify},
		{"broadcast", d.broadcast},
		{"wait until every push has ended", d.settle},
		{"statistics", d.stats},
		{"reconcile", d.reconcile},
	}
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("demonstration: %s: %w", s.what, err)
		}
	}
	d.invite()
	return nil
}

// create makes the app and the operator's keys, unless an earlier run did.
func (d *demo) create(ctx context.Context) error {
	dir, err := readDirectory(ctx, d.p.log)
	if err != nil {
		return err
	}
	apnsPlain, fcmPlain, err := simulatorCredentials(d.simulator)
	if err != nil {
		return err
	}
	for t, plain := range map[schemas.Transport][]byte{schemas.APNS: apnsPlain, schemas.FCM: fcmPlain} {
		if err := appendCredentials(ctx, d.p.log, d.p.secrets.keyring, demoApp, t, plain); err != nil {
			return err
		}
	}
	if old, err := readDemoEnv(d.envFile()); err == nil && dir.apps[demoApp] != nil {
		d.env = old
		d.say("app %s is there from an earlier run", demoApp)
		return nil
	}
	keys := map[*string]uint32{&d.env.all: 15, &d.env.phone: 1, &d.env.none: 0}
	err = d.p.log.Append(ctx, func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{
			App: demoApp, Title: "Demonstration", ConfiguredAtUs: time.Now().UnixMicro(), ConfiguredBy: "demo",
		})
		for value, bits := range keys {
			var e *pushv1.AccessKeyIssued
			*value, e = newKey(demoApp, bits)
			e.Description = "demonstration"
			out.AccessKeyIssued(e)
		}
	})
	if err != nil {
		return err
	}
	d.say("app %s created, with credentials for both simulated providers", demoApp)
	return nil
}

// claim asks for each site's key through the API, and proves it as an operator would with `campanile key approve`.
func (d *demo) claim(ctx context.Context) error {
	if len(d.env.sites) == demoSites {
		return nil
	}
	for n := range demoSites {
		key, err := d.moodle("").RequestKey(ctx, siteURL(n), fmt.Sprintf("site-secret-%d", n))
		if err != nil {
			return err
		}
		d.env.sites = append(d.env.sites, key)
	}
	dir, err := readDirectory(ctx, d.p.log)
	if err != nil {
		return err
	}
	err = d.p.log.Append(ctx, func(out *schemas.Out) {
		for _, k := range dir.apps[demoApp].keys {
			if k.Claim != nil {
				approve(k)
				out.AccessKeyIssued(k)
			}
		}
	})
	if err != nil {
		return err
	}
	d.say("%d sites have keys of their own", demoSites)
	return os.WriteFile(d.envFile(), []byte(d.env.text(d.url)), 0o600)
}

// register registers every site's phones with the site's own key, as Moodle does.
func (d *demo) register(ctx context.Context) error {
	const n = demoSites * demoPhonesPerSite
	var done atomic.Int64
	stop := d.bar("registering phones", n, &done)
	err := bench.Each(ctx, n, demoClients, &done, func(ctx context.Context, i int) error {
		site := i % demoSites
		phone := bench.MakePhone(siteURL(site), i)
		return d.moodle(d.env.sites[site]).Register(ctx, phone.Token, phone.Platform, "")
	})
	stop()
	if err != nil {
		return err
	}
	d.say("%d phones registered, %d at each of %d sites", n, demoPhonesPerSite, demoSites)
	return nil
}

func (d *demo) notify(ctx context.Context) error {
	var done, dead atomic.Int64
	stop := d.bar("notifying", demoNotifications, &done)
	err := bench.Each(ctx, demoNotifications, demoClients, &done, func(ctx context.Context, i int) error {
		site := i % demoSites
		phone := bench.MakePhone(siteURL(site), i)
		a, err := d.moodle(d.env.sites[site]).Push(ctx, phone.Token, phone.Platform, "Anne O'Neil replied to your post")
		if err != nil {
			return err
		}
		switch {
		case a.Status == 202:
		case a.Status == 404 && a.Field("error") == "Unregistered token": // found dead by an earlier run
			dead.Add(1)
		default:
			return fmt.Errorf("push: %d %s", a.Status, a.Body)
		}
		return nil
	})
	stop()
	if err != nil {
		return err
	}
	d.say("%d notifications taken, %d refused because the phone is gone", demoNotifications-dead.Load(), dead.Load())
	return nil
}

// broadcast reaches the first site's phones and nobody else's.
func (d *demo) broadcast(ctx context.Context) error {
	text, err := d.moodle(d.env.sites[0]).Broadcast(ctx, siteChannel(0), "The library closes at six today")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	last, err := showProgress(ctx, &logDesk{d.p.cfg, d.p.log}, text, d.out, d.plain)
	if err != nil {
		return err
	}
	d.say("broadcast %s to %s %s", text, siteURL(0), summary(&last))
	return nil
}

// settle waits until nothing is pending in the log.
func (d *demo) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	var mu sync.Mutex
	r := audit.NewReconciler()
	reading := follow(ctx, d.p.log, "demo.settle", func(rec schemas.Record) error {
		mu.Lock()
		defer mu.Unlock()
		return r.Apply(rec)
	}, audit.Topics()...)
	defer reading.end()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-reading.ended:
			return reading.err
		case <-ticker.C:
		}
		if err := reading.CatchUp(ctx); err != nil {
			return err
		}
		mu.Lock()
		pending := r.Totals().Pending
		mu.Unlock()
		if pending == 0 {
			return nil
		}
	}
}

func (d *demo) stats(ctx context.Context) error {
	if d.p.analytics == nil {
		d.say("no statistics: libchdb is not here (`make chdb` fetches it)")
		return nil
	}
	if err := d.counted(ctx); err != nil {
		return err
	}
	fmt.Fprintln(d.out)
	return printStats(ctx, d.out, d.p.analytics, statsFormat{})
}

// counted waits until ClickHouse holds every delivery that the log has now.
func (d *demo) counted(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	ends, err := d.p.log.Ends(ctx, schemas.Deliveries)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		offsets, err := d.p.log.GroupOffsets(ctx, schemas.GroupAnalytics)
		if err != nil {
			return err
		}
		behind := false
		for _, o := range offsets {
			behind = behind || o.Topic == schemas.Deliveries && o.Committed < ends[o.Partition]
		}
		if !behind {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *demo) reconcile(ctx context.Context) error {
	totals, err := reconcileLog(ctx, d.p.log)
	if err != nil {
		return err
	}
	ledger := d.simulator.Ledger().Summary()
	fmt.Fprintf(d.out, "\nreconciled: %s ledger=%d repeats=%d\n", totals, ledger.Accepted, ledger.Repeats)
	return nil
}

func (d *demo) invite() {
	fmt.Fprintf(d.out, `
API        %s
ops        http://%s/metrics
keys       %s

Try it (the phone is one of the first site's):

  . %s
  curl -sS $BASE_URL/tokens/my-phone -H "X-AN-APP-NAME: $APP_NAME" -H "X-AN-APP-KEY: $KEY_ALL" -F device=Android-fcm
  curl -sS -i $BASE_URL/api/v2/push/ -H "X-AN-APP-NAME: $APP_NAME" -H "X-AN-APP-KEY: $KEY_ALL" -d '{"device":"Android-fcm","token":"my-phone","alert":"Hello"}'
  curl -sS -i $BASE_URL/api/v2/broadcast/ -H "X-AN-APP-NAME: $APP_NAME" -H "X-AN-APP-KEY: $KEY_SITE" -d '{"alert":"To every phone of one site"}'
  %s stats --data %s
  %s reconcile --data %s

Ctrl-C stops it.
`, d.url, d.p.opsAddress, d.envFile(), d.envFile(), os.Args[0], d.p.cfg.Data, os.Args[0], d.p.cfg.Data)
}

func (d *demo) moodle(key string) bench.Moodle {
	return bench.Moodle{BaseURL: d.url, App: demoApp, Key: key, Client: d.p.demoClient}
}

func (d *demo) envFile() string { return filepath.Join(d.p.cfg.Data, "demo.env") }

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, "· "+format+"\n", args...) }

// bar draws progress from a counter until the returned function is called. Where the output is no terminal it draws nothing.
func (d *demo) bar(what string, total int64, done *atomic.Int64) (stop func()) {
	if d.plain {
		return func() {}
	}
	bar := newBar(d.out, what, total)
	quit, drawn := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drawn)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				_ = bar.Set64(done.Load())
				_ = bar.Clear()
				return
			case <-ticker.C:
				_ = bar.Set64(done.Load())
			}
		}
	}()
	return func() { close(quit); <-drawn }
}

func newBar(out io.Writer, what string, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(30), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false),
		progressbar.OptionThrottle(50*time.Millisecond))
}

func (e demoEnv) text(url string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "BASE_URL=%s\nAPP_NAME=%s\nKEY_ALL=%s\nKEY_SITE=%s\nKEY_PHONE=%s\nKEY_NONE=%s\n", url, demoApp, e.all, e.sites[0], e.phone, e.none)
	for n, key := range e.sites {
		fmt.Fprintf(&b, "KEY_SITE_%d=%s\n", n+1, key)
	}
	return b.String()
}

func readDemoEnv(file string) (demoEnv, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return demoEnv{}, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[name] = value
	}
	e := demoEnv{all: values["KEY_ALL"], phone: values["KEY_PHONE"], none: values["KEY_NONE"]}
	for n := range demoSites {
		if key := values[fmt.Sprintf("KEY_SITE_%d", n+1)]; key != "" {
			e.sites = append(e.sites, key)
		}
	}
	return e, nil
}

// reconcileLog folds the log as it stands now.
func reconcileLog(ctx context.Context, log *eventlog.Log) (audit.Totals, error) {
	r := audit.NewReconciler()
	err := replay(ctx, log, "reconcile", r.Apply, audit.Topics()...)
	return r.Totals(), err
}
