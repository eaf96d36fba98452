package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/audit"
	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders/maxprocs"
	"github.com/campanile-push/campanile/vault"
)

func pipelineName(devices int) string { return "pipeline/embedded/" + sizeName(devices) }

// pipeline is `campanile up` in a process of its own, with its analytics engine as its child. The simulator is another process, and this
// one loads the devices and asks for the broadcasts.
func (h *harness) pipeline(ctx context.Context) (rows []Row, err error) {
	name := pipelineName(h.Devices)
	up, end, err := h.startPipeline(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if rows, err = up.rounds(ctx, name); err != nil {
		return nil, err
	}
	if !up.analytics {
		for i := range rows {
			rows[i].Void = "without analytics: libchdb is not there"
		}
	}
	return rows, nil
}

// rounds loads the devices, broadcasts to all of them in every round, and reconciles.
func (u *running) rounds(ctx context.Context, name string) ([]Row, error) {
	if err := u.load(ctx); err != nil {
		return nil, err
	}
	var samples []sample
	for round := range u.h.Rounds {
		s, err := u.broadcast(ctx, name, round+1)
		if err != nil {
			return nil, fmt.Errorf("round %d: %w", round+1, err)
		}
		u.h.say("round %d  %s  in %s", round+1, s, s.wall.Round(time.Second/10))
		samples = append(samples, s)
	}
	memory, err := u.memory()
	if err != nil {
		return nil, err
	}
	if err := u.reconcile(ctx, int64(u.h.Rounds)*int64(u.h.Devices)); err != nil {
		return nil, err
	}
	return []Row{
		row(name+"/cpu_us", "µs/push", each(samples, sample.cpuUS), nil),
		row(name+"/rate", "pushes/s", each(samples, sample.rate), nil),
		row(name+"/rss_mb", "MB", []float64{float64(memory) / 1e6}, nil),
	}, nil
}

// startPipeline starts a simulator and `campanile up` on it. end ends both, the pipeline first. more are flags of `campanile up`.
func (h *harness) startPipeline(ctx context.Context, more ...string) (up *runningUp, end func() error, err error) {
	p, err := h.newProvider(ctx)
	if err != nil {
		return nil, nil, err
	}
	if up, err = h.startUp(ctx, p, more...); err != nil {
		return nil, nil, errors.Join(err, p.child.end())
	}
	return up, func() error { return errors.Join(up.stop(), p.child.end()) }, nil
}

// runningUp is a running `campanile up`.
type runningUp struct {
	running

	cmd   *exec.Cmd
	data  string
	ended chan error // of Wait
}

// running is a pipeline at work, of one process or of many.
type running struct {
	h         *harness
	p         *provider
	api, ops  string  // URLs; ops is that of the process whose profile is taken
	masterKey string  // file
	analytics bool    // deliveries are counted
	rate      float64 // of broadcasts to all devices, pushes a second; zero: none of their own
	log       *eventlog.Log
	// parts are the processes whose CPU time and memory are the pipeline's, by name, read now.
	parts func() (map[string][]int, error)
}

// pipelinePatience is how long a start, and a round without any progress, may take.
const pipelinePatience = 5 * time.Minute

func (h *harness) startUp(ctx context.Context, p *provider, more ...string) (*runningUp, error) {
	data := filepath.Join(h.dir, "data")
	u := &runningUp{running: running{h: h, p: p, masterKey: filepath.Join(data, "master.key")}, data: data, ended: make(chan error, 1)}
	u.parts = func() (map[string][]int, error) {
		engine, err := childrenOf(u.cmd.Process.Pid)
		return map[string][]int{"up": {u.cmd.Process.Pid}, "engine": engine}, err
	}
	ca := filepath.Join(h.dir, "ca.pem")
	if err := os.WriteFile(ca, []byte(p.at.CAPEM), 0o600); err != nil {
		return nil, fmt.Errorf("start the pipeline: %w", err)
	}
	args := []string{
		"up", "--data", u.data, "--http-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--log-level", "error",
		"--apns-host", p.at.APNSURL, "--apns-sandbox-host", p.at.SandboxURL, "--apns-ca", ca, "--fcm-endpoint", p.at.FCMURL + "/v1", "--fcm-ca", ca,
		"--senders-fcm-quota", "0", // or Google's default quota would be what is measured
		// Room for the rounds: deliveries are kept for 30 days.
		"--embedded-max-log", fmt.Sprint(4<<30 + int64(h.Devices)*int64(h.Rounds+2)*400),
	}
	if h.Library != "" {
		args = append(args, "--clickhouse-library", h.Library)
	}
	u.cmd = h.Command(ctx, append(args, more...)...)
	u.cmd.Cancel = func() error { return u.cmd.Process.Signal(syscall.SIGTERM) }
	u.cmd.WaitDelay = childPatience
	u.cmd.Stderr = h.Out
	if err := u.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the pipeline: %w", err)
	}
	go func() { u.ended <- u.cmd.Wait() }()
	if err := u.connect(ctx); err != nil {
		return nil, errors.Join(err, u.stop())
	}
	h.say("%s", strings.Join(u.cmd.Args, " "))
	return u, nil
}

// connect waits until the process is ready, and opens its log.
func (u *runningUp) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pipelinePatience)
	defer cancel()
	var at struct {
		API       string `json:"api"`
		Ops       string `json:"ops"`
		Analytics string `json:"analytics"`
	}
	err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
		select {
		case err := <-u.ended:
			u.ended <- err
			return false, fmt.Errorf("campanile up ended: %w", err)
		default:
		}
		text, err := os.ReadFile(filepath.Join(u.data, "up.json"))
		if err != nil || json.Unmarshal(text, &at) != nil {
			return false, nil //nolint:nilerr // not there yet
		}
		return get(ctx, at.Ops+"/readyz") == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for campanile up: %w", err)
	}
	u.api, u.ops, u.analytics = at.API, at.Ops, at.Analytics != ""
	dial, ok := broker.Running(filepath.Join(u.data, "log"))
	if !ok {
		return errors.New("the embedded log does not answer")
	}
	u.log, err = eventlog.Open(ctx, eventlog.Config{Brokers: broker.Brokers(), Dial: dial, Replication: 1}, u.h.Logger, nil)
	return err
}

func get(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	_, err = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return err
}

// stop ends the process as an operator does.
func (u *runningUp) stop() error {
	if u.log != nil {
		closing, cancel := context.WithTimeout(context.Background(), childPatience)
		defer cancel()
		_ = u.log.Close(closing)
	}
	_ = u.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-u.ended; err != nil {
		return fmt.Errorf("campanile up ended badly: %w", err)
	}
	return nil
}

// cpu is what the processes have used, by name.
func (u *running) cpu() (map[string]time.Duration, error) {
	parts, err := u.parts()
	used := map[string]time.Duration{}
	for name, pids := range parts {
		for _, pid := range pids {
			n, failed := familyCPU(pid)
			if errors.Is(failed, fs.ErrNotExist) {
				continue // one of PostgreSQL's backends has ended: its time is its parent's now
			}
			err = errors.Join(err, failed)
			used[name] += n
		}
	}
	return used, err
}

// memory is the peak of resident memory, of all processes together. Memory that several of them share is counted for each.
func (u *running) memory() (total int64, err error) {
	peaks, err := u.peaks()
	for _, n := range peaks {
		total += n
	}
	return total, err
}

// peaks are the peaks of resident memory in bytes, by name, since each process began or was told to forget (forgetPeaks).
func (u *running) peaks() (map[string]int64, error) {
	parts, err := u.parts()
	if err != nil {
		return nil, err
	}
	peaks := map[string]int64{}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		for _, pid := range parts[name] {
			n, err := peakRSS(pid)
			if errors.Is(err, os.ErrProcessDone) {
				continue // one of PostgreSQL's backends, which come and go
			}
			if err != nil {
				return nil, err
			}
			peaks[name] += n
		}
		list = append(list, fmt.Sprintf("%s %d", name, peaks[name]/1e6))
	}
	u.h.say("peak of resident memory in MB: %s", strings.Join(list, ", "))
	return peaks, nil
}

// forgetPeaks lets the peaks of some processes begin anew.
func (u *running) forgetPeaks(names ...string) error {
	parts, err := u.parts()
	if err != nil {
		return err
	}
	for _, name := range names {
		for _, pid := range parts[name] {
			if err := forgetPeak(pid); err != nil {
				return err
			}
		}
	}
	return nil
}

// configure makes the app, with credentials, and a key.
func (u *running) configure(ctx context.Context) error {
	text, err := os.ReadFile(u.masterKey)
	if err != nil {
		return fmt.Errorf("read the pipeline's key: %w", err)
	}
	keyring, err := vault.ParseKeyring(string(text))
	if err != nil {
		return err
	}
	if err := addApp(ctx, u.log, keyring, u.p, schemas.Transports...); err != nil {
		return err
	}
	return u.log.Append(ctx, func(out *schemas.Out) { out.AccessKeyIssued(issued(15)) })
}

// load makes the app, a key and the devices through the log, and waits until every stage has read them.
func (u *running) load(ctx context.Context) error {
	began := time.Now()
	if err := u.configure(ctx); err != nil {
		return err
	}
	t := &topics{Log: u.log}
	if err := t.register(ctx, u.h.Devices); err != nil {
		return err
	}
	appended := time.Since(began)
	for _, group := range []string{schemas.GroupProjector, schemas.GroupAnalytics} {
		if err := u.settled(ctx, group); err != nil {
			return err
		}
	}
	used, err := u.cpu()
	if err != nil {
		return err
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(used)) {
		list = append(list, fmt.Sprintf("%s %.1f", name, float64(used[name].Microseconds())/float64(u.h.Devices)))
	}
	u.h.say("%d devices appended in %s, read by projector and analytics after %s; µs of CPU for each since the start: %s",
		u.h.Devices, appended.Round(time.Second/10), time.Since(began).Round(time.Second/10), strings.Join(list, ", "))
	return nil
}

// settled waits until a group has committed all that is there. Without an analytics engine there is nothing to wait for.
func (u *running) settled(ctx context.Context, group string) error {
	if group == schemas.GroupAnalytics && !u.analytics {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pipelinePatience)
	defer cancel()
	var last error // the embedded broker answers nobody while it compacts; on a busy machine that can be longer than a request waits
	err := poll(ctx, 100*time.Millisecond, func() (bool, error) {
		var offsets []eventlog.GroupOffset
		if offsets, last = u.log.GroupOffsets(ctx, group); last != nil {
			return false, nil //nolint:nilerr // asked again
		}
		for _, o := range offsets {
			if o.Lag() > 0 {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", group, errors.Join(err, last))
	}
	return nil
}

// broadcast asks for one over HTTP, and measures until it has ended and analytics have read all of it.
func (u *running) broadcast(ctx context.Context, name string, round int) (sample, error) {
	return u.broadcasts(ctx, name, round, 1)
}

// broadcasts asks for so many, one when the one before has ended, and measures until analytics have read all of them.
func (u *running) broadcasts(ctx context.Context, name string, round, count int) (sample, error) {
	before, err := u.spent()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	stopProfile := u.profile(ctx, name, round)
	defer stopProfile()
	s := sample{others: map[string]time.Duration{}}
	for range count {
		n, err := u.reach(ctx)
		if err != nil {
			return s, err
		}
		s.n += n
	}
	s.wall = time.Since(began)
	if err := u.settled(ctx, schemas.GroupAnalytics); err != nil {
		return s, err
	}
	now, err := u.spent()
	if err != nil {
		return s, err
	}
	for name, used := range now.parts {
		s.cpu += used - before.parts[name]
		s.others[ofIt+name] = used - before.parts[name]
	}
	s.others["simulator"], s.others["load"] = now.simulator-before.simulator, now.load-before.load
	return s, nil
}

// ofIt stands before the names of processes whose CPU time is in the figure.
const ofIt = "of it "

// toAll broadcasts to all devices, at the rate that was asked for.
func (u *running) toAll(ctx context.Context) (schemas.ID, error) {
	if u.rate == 0 {
		moodle := Moodle{BaseURL: u.api, App: app, Key: benchKey, Client: NewClient(1)}
		id, err := moodle.Broadcast(ctx, siteChannel, payload().Body)
		if err != nil {
			return schemas.ID{}, err
		}
		return schemas.ParseID(id)
	}
	client := api.Client{URL: u.api, App: app, Key: benchKey, HTTP: NewClient(1)}
	content := payload()
	accepted, err := client.SendBroadcast(ctx, "", api.BroadcastRequest{
		Channels: []string{siteChannel}, Message: &api.Message{Title: content.Title, Body: content.Body}, Rate: u.rate,
	})
	if err != nil {
		return schemas.ID{}, err
	}
	return schemas.ParseID(accepted.ID)
}

// reach broadcasts to all devices, and returns when the last answer is counted.
func (u *running) reach(ctx context.Context) (n int, err error) {
	id, err := u.toAll(ctx)
	if err != nil {
		return 0, err
	}
	ended, err := u.endOf(ctx, id)
	if err != nil {
		return 0, err
	}
	for _, c := range ended.Counts {
		n += int(c.Emitted)
		if c.Accepted != c.Emitted {
			return n, fmt.Errorf("%s: %d of %d accepted", c.Transport.Word(), c.Accepted, c.Emitted)
		}
	}
	if n != u.h.Devices {
		return n, fmt.Errorf("want %d pushes, got %d", u.h.Devices, n)
	}
	return n, nil
}

// spent is the CPU time that was used until now: by the pipeline's processes, and by what is in no figure.
type spent struct {
	parts           map[string]time.Duration
	simulator, load time.Duration
}

func (u *running) spent() (s spent, err error) {
	if s.parts, err = u.cpu(); err != nil {
		return s, err
	}
	if s.simulator, err = processCPU(u.p.child.pid()); err != nil {
		return s, err
	}
	s.load, err = maxprocs.CPUTime()
	return s, err
}

// endOf waits for the end of a broadcast.
func (u *running) endOf(ctx context.Context, id schemas.ID) (*pushv1.BroadcastEnded, error) {
	var ended *pushv1.BroadcastEnded
	found := make(chan struct{})
	following := u.log.Follow("bench.end", func(r schemas.Record) error {
		var e pushv1.BroadcastEnded
		if ended != nil || r.Type() != e.EventType() {
			return nil
		}
		event, err := r.Event()
		if err != nil {
			return err
		}
		if got, ok := event.(*pushv1.BroadcastEnded); ok && schemas.IDFrom(got.BroadcastId) == id {
			ended = got
			close(found)
		}
		return nil
	}, schemas.Broadcasts)
	if err := untilDone(ctx, found, following.Run); err != nil {
		return nil, fmt.Errorf("wait for the end of the broadcast: %w", err)
	}
	return ended, nil
}

// profile takes half a minute of the process's CPU profile into the folder for profiles.
func (u *running) profile(ctx context.Context, name string, round int) (wait func()) {
	if u.h.Profile == "" {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.ops+"/debug/pprof/profile?seconds=30", nil)
		if err != nil {
			return
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return
		}
		defer func() { _ = answer.Body.Close() }()
		f, err := os.Create(u.h.profileFile(name, round))
		if err != nil {
			return
		}
		defer func() { _ = f.Close() }()
		_, _ = io.Copy(f, answer.Body)
	}()
	return func() { <-done }
}

// reconcile proves from the log and the simulator's ledger that every push was made once.
func (u *running) reconcile(ctx context.Context, want int64) error {
	r := audit.NewReconciler()
	if err := replay(ctx, u.log, r.Apply, audit.Topics()...); err != nil {
		return err
	}
	totals := r.Totals()
	ledger, err := u.p.client.Summary(ctx)
	if err != nil {
		return err
	}
	u.h.say("reconciled: %s ledger=%d repeats=%d", totals, ledger.Accepted, ledger.Repeats)
	if totals.Accepted != want || totals.Delivered != want || totals.Pending != 0 || ledger.Accepted != want || ledger.Repeats != 0 {
		return fmt.Errorf("want %d pushes, each delivered once", want)
	}
	return nil
}
