package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
	"github.com/campanile-push/campanile/vault"
)

// What pushes in a cell of the grid besides the sender on its clients, senders.StockTransport and senders.H2Transport.
const (
	floorClient   = "floor"   // raw frames, no log, no outcomes
	libraryClient = "library" // apns2 or go-fcm alone: no log, no outcomes
)

// cell is one place of the senders' grid.
type cell struct {
	transport schemas.Transport
	latency   time.Duration // of every answer
	size      string        // of the payload, as it stands in the name
	clients   []string
	marks     []int64 // pushes after which the stage's memory is noted, rising
}

// grid are the benchmarks of the senders: each cell compares its clients in turns, so that they meet the same machine.
func grid() []benchmark {
	var all []benchmark
	for _, transport := range schemas.Transports {
		for _, latency := range []time.Duration{0, 20 * time.Millisecond, 50 * time.Millisecond} {
			for _, size := range []string{"200B", "4KB"} {
				c := cell{transport: transport, latency: latency, size: size, clients: []string{senders.H2Transport, senders.StockTransport, floorClient}}
				if latency == 0 && size == "200B" {
					c.clients = append(c.clients, libraryClient)
				}
				all = append(all, c.benchmark())
			}
		}
	}
	return all
}

func (c cell) name(client string) string {
	return fmt.Sprintf("sender/%s/%dms/%s/%s", c.transport.Word(), c.latency.Milliseconds(), c.size, client)
}

// figures are the names of a client's rows.
func (c cell) figures(client string) []string {
	rows := []string{c.name(client) + "/cpu_us", c.name(client) + "/rate", c.name(client) + "/rss_mb"}
	if c.latency > 0 && client == senders.H2Transport {
		rows = append(rows, c.name(client)+"/little")
	}
	return rows
}

func (c cell) benchmark() benchmark {
	var rows []string
	for _, client := range c.clients {
		rows = append(rows, c.figures(client)...)
	}
	return benchmark{
		rows, fmt.Sprintf("the whole %s sender (read, push, outcome, commit), answers after %s, payloads of %s: in turns %q", c.transport.Word(), c.latency, c.size, c.clients),
		func(h *harness, ctx context.Context) ([]Row, error) { return h.grid(ctx, c) },
	}
}

// content is what the cell pushes: an APNs payload of 200 or of 4,000 bytes, of which 58 are JSON around title and body. FCM's JSON is
// longer, and its limit counts all of it.
func (c cell) content() *pushv1.Content {
	e := payload()
	if c.size == "4KB" {
		n := 4000 - (200 - payloadBody)
		if c.transport == schemas.FCM {
			n = 3700
		}
		for len(e.Body) < n {
			e.Body += payload().Body
		}
		e.Body = e.Body[:n]
	}
	return e
}

// connections of the floor: APNs takes 1,000 streams on each and FCM's front end 100, so that latency asks for more.
func (c cell) connections() int {
	switch {
	case c.latency == 0:
		return 1
	case c.transport == schemas.FCM:
		return floorInFlight / 100
	}
	return floorInFlight / 1000
}

// pushes of a round: with latency, enough that the first second, in which connections are made, weighs little.
func (c cell) pushes() int {
	if c.latency > 0 {
		return 200_000
	}
	return 100_000
}

// clientReport is what one client did in one round, in a process of its own.
type clientReport struct {
	N        int           `json:"n"`
	Wall     time.Duration `json:"wall"`
	CPU      time.Duration `json:"cpu"`
	RSS      int64         `json:"rss"`       // peak, bytes
	File     int64         `json:"file"`      // of it, pages of the program's file
	Allocs   uint64        `json:"allocs"`    // objects
	InFlight float64       `json:"in_flight"` // pushes that waited for an answer, on average over Busy; 0: not known
	Busy     time.Duration `json:"busy"`      // from the first push to the last answer; 0: not known
	Peaks    []int64       `json:"peaks"`     // resident memory at the order's marks, bytes

	p50, p99 time.Duration            // to the provider's answer; 0: not known
	others   map[string]time.Duration // CPU of the processes that it needs
}

func (r clientReport) cpuUS() float64 { return float64(r.CPU.Nanoseconds()) / 1000 / float64(r.N) }

func (r clientReport) rate() float64 { return float64(r.N) / r.Wall.Seconds() }

// little is the rate as a share of what the pushes in flight and the latency allow (Little's law): what is missing, answers took longer
// than the provider's latency.
func (r clientReport) little(latency time.Duration) float64 {
	if r.InFlight == 0 || r.Busy == 0 {
		return 0
	}
	return float64(r.N) / r.Busy.Seconds() / (r.InFlight / latency.Seconds())
}

// startSurroundings starts what a sender stands between: a broker and a simulator. end ends both.
func (h *harness) startSurroundings(ctx context.Context) (c *cluster, p *provider, end func() error, err error) {
	if c, err = h.newCluster(ctx); err != nil {
		return nil, nil, nil, err
	}
	if p, err = h.newProvider(ctx); err != nil {
		_ = c.close()
		return nil, nil, nil, err
	}
	return c, p, func() error {
		err := p.child.end()
		_ = c.close()
		return err
	}, nil
}

// wanted are the clients with a row that only matches; without the floor there is nothing to compare with.
func (c cell) wanted(only *regexp.Regexp) (clients []string) {
	for _, client := range c.clients {
		if slices.ContainsFunc(c.figures(client), only.MatchString) {
			clients = append(clients, client)
		}
	}
	return clients
}

func (h *harness) grid(ctx context.Context, c cell) (rows []Row, err error) {
	only, err := regexp.Compile(h.Only)
	if err != nil {
		return nil, fmt.Errorf("which benchmarks: %w", err)
	}
	c.clients = c.wanted(only)
	cluster, p, end, err := h.startSurroundings(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := p.answerAfter(ctx, c.latency); err != nil {
		return nil, err
	}
	n := h.scaled(c.pushes())
	h.say("%d pushes a round; broker and simulator are other processes, and so is each client, anew in each round", n)
	reports := map[string][]clientReport{}
	for round := range h.Rounds {
		for _, client := range c.clients {
			r, err := h.push(ctx, cluster, p, c, client, n, round+1)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", c.name(client), round+1, err)
			}
			h.say("round %d  %-8s%s", round+1, client, r.describe(c.latency))
			reports[client] = append(reports[client], r)
		}
	}
	return c.rows(reports), nil
}

// describe is a report on part of a line.
func (r clientReport) describe(latency time.Duration) string {
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(r.N) }
	s := fmt.Sprintf("%8.0f/s %6.2f µs CPU  %5.1f allocs  %4d MB  simulator %.2f, broker %.2f", r.rate(), r.cpuUS(), float64(r.Allocs)/float64(r.N), r.RSS/1e6,
		each(r.others["simulator"]), each(r.others["broker"]))
	if r.p99 > 0 {
		s += fmt.Sprintf("  answers p50 %s p99 %s", r.p50.Round(100*time.Microsecond), r.p99.Round(100*time.Microsecond))
	}
	if latency > 0 && r.InFlight > 0 {
		s += fmt.Sprintf("  %.0f in flight: %.0f %% of in-flight ÷ latency", r.InFlight, 100*r.little(latency))
	}
	return s
}

// rows compare each client with the floor.
func (c cell) rows(reports map[string][]clientReport) []Row {
	figures := func(client string, figure func(clientReport) float64) (values []float64) {
		for _, r := range reports[client] {
			values = append(values, figure(r))
		}
		return values
	}
	var rows []Row
	for _, client := range c.clients {
		name := c.name(client)
		versus := func(figure func(clientReport) float64) []float64 {
			if client == floorClient {
				return nil
			}
			return figures(floorClient, figure)
		}
		rss := func(r clientReport) float64 { return float64(r.RSS) / 1e6 }
		rows = append(rows,
			row(name+"/cpu_us", "µs/push", figures(client, clientReport.cpuUS), versus(clientReport.cpuUS)),
			row(name+"/rate", "pushes/s", figures(client, clientReport.rate), versus(clientReport.rate)),
			row(name+"/rss_mb", "MB", figures(client, rss), versus(rss)))
	}
	if c.latency > 0 && slices.Contains(c.clients, senders.H2Transport) {
		little := row(c.name(senders.H2Transport)+"/little", "ratio", figures(senders.H2Transport, func(r clientReport) float64 { return r.little(c.latency) }), nil)
		little.Baseline, little.Ratio = 1, little.Value
		rows = append(rows, little)
	}
	return rows
}

// push has one client push to n phones once, in a process of its own.
func (h *harness) push(ctx context.Context, cluster *cluster, p *provider, c cell, client string, n, round int) (r clientReport, err error) {
	o := senderOrder{
		Transport: c.transport, Client: client, Content: c.content(), N: n, Connections: c.connections(), Marks: c.marks, At: p.at, Account: p.account,
		Log: filepath.Join(h.dir, "log"), Keyring: vault.NewKeyLine("1"), Hash: vault.NewHashKey(),
	}
	if h.Profile != "" {
		o.Profile = h.profileFile(c.name(client), round)
	}
	var t *topics
	if client == senders.H2Transport || client == senders.StockTransport {
		if t, err = cluster.newTopics(ctx); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, t.drop(context.WithoutCancel(ctx))) }()
		o.Prefix = t.prefix
		if err := o.fill(ctx, t, p); err != nil {
			return r, err
		}
	}
	before, err := p.accepted(ctx)
	if err != nil {
		return r, err
	}
	var ready struct{}
	process, err := h.startChild(ctx, roleSender, order{Sender: &o}, &ready)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, process.end()) }()
	w, err := h.watch(map[string]*child{"broker": cluster.child, "simulator": p.child})
	if err != nil {
		return r, err
	}
	if err := process.write(before + int64(n)); err != nil {
		return r, err
	}
	if err := process.read(&r); err != nil {
		return r, err
	}
	s, err := w.stop(n)
	if err != nil {
		return r, err
	}
	r.others = s.others
	if after, err := p.accepted(ctx); err != nil || after != before+int64(n) {
		return r, errors.Join(fmt.Errorf("want %d pushes in the ledger, got %d", n, after-before), err)
	}
	if t != nil {
		r.p50, r.p99, err = t.latencies(ctx, n)
	}
	return r, err
}

// fill puts the app, a broadcast and its sends into the log.
func (o *senderOrder) fill(ctx context.Context, t *topics, p *provider) error {
	keyring, err := vault.ParseKeyring(o.Keyring)
	if err != nil {
		return err
	}
	if err := addApp(ctx, t.Log, keyring, p, o.Transport); err != nil {
		return err
	}
	id, record := schemas.NewID(), schemas.NewID()
	err = t.Append(ctx, func(out *schemas.Out) {
		out.BroadcastRequested(&pushv1.BroadcastRequested{
			BroadcastId: id[:], RecordId: record[:], App: app, Channels: []string{siteChannel}, Content: o.Content, RequestedAtUs: time.Now().UnixMicro(),
		})
	})
	if err != nil {
		return err
	}
	return t.fill(ctx, o.N, func(out *schemas.Out, i int) { bulkSend(out, id, phoneOf(i, o.Transport)) })
}

// latencies counts the outcomes in the log, of which every one must be an accepted push, and returns how long the answers took.
func (t *topics) latencies(ctx context.Context, want int) (p50, p99 time.Duration, err error) {
	took := make([]uint32, 0, want)
	err = replay(ctx, t.Log, func(r schemas.Record) error {
		if r.Type() != pushv1.EventType_EVENT_TYPE_DELIVERY_FINISHED {
			return nil
		}
		var e pushv1.DeliveryFinished
		if err := r.Into(&e); err != nil {
			return err
		}
		if e.Outcome == pushv1.Outcome_OUTCOME_ACCEPTED {
			took = append(took, uint32(min(e.LatencyUs, 1<<31)))
		}
		return nil
	}, schemas.Deliveries)
	if err == nil && len(took) != want {
		err = fmt.Errorf("want %d accepted pushes in the log, got %d", want, len(took))
	}
	if err != nil {
		return 0, 0, err
	}
	slices.Sort(took)
	at := func(q float64) time.Duration {
		return time.Duration(took[int(q*float64(len(took)-1))]) * time.Microsecond
	}
	return at(0.5), at(0.99), nil
}
