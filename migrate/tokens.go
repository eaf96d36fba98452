package migrate

import (
	"context"
	"crypto/sha256"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// sayAtOnce is how many devices go into one append: some 4 MB, which one acknowledgement covers.
const sayAtOnce = 8192

// record is one record of a token, wherever it came from.
type record struct {
	app                    string
	device, token, channel value
	// keyID is the access key to which the registration is ascribed; empty: none.
	keyID string
	// refused says why the record is not looked at; result is then what it counts as.
	refused string
	result  Result
}

// source reads its records from the beginning, in the same order each time. It adds the bytes that it has read to *read.
type source struct {
	path string
	each func(ctx context.Context, read *int64, f func(record) error) error
}

// tokens imports the records of tokens. It reads them twice, so that memory holds a few bytes for each token and never the tokens: the
// first time to see which records are of one token, the second time to say them.
type tokens struct {
	importer *importer
	sources  []source
	tables   map[string]*table
	sequence int64 // records of this pass so far
	read     int64 // bytes
	total    int64
}

// table is what the first pass learns of the tokens of an app.
type table struct {
	tokens    map[digest]fold
	platforms []string // by number
	numbers   map[string]uint16
}

// fold is a token: the best of what its records say.
type fold struct {
	last     int64 // the number of its last record
	platform uint16
	rank     uint8
	apns     bool
}

var (
	errChanged = errors.New("the files changed while they were read: run it again")
	errVariety = errors.New("more than 65536 different platforms in one app: this is no export of tokens")
)

func (t *tokens) run(ctx context.Context) error {
	paths := make([]string, len(t.sources))
	for i, s := range t.sources {
		paths[i] = s.path
	}
	t.total, t.tables = sizes(paths), map[string]*table{}
	if err := t.pass(ctx, "reading", t.learn); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	batches := make(chan []saying, 1)
	group.Go(func() error {
		defer close(batches)
		p := &planner{tokens: t, batches: batches}
		step := "importing"
		if t.importer.options.DryRun {
			step = "checking"
		}
		if err := t.pass(ctx, step, func(r record) error { return p.plan(ctx, r) }); err != nil {
			return err
		}
		return p.flush(ctx)
	})
	group.Go(func() error {
		for batch := range batches {
			if err := t.importer.say(ctx, batch); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait() //nolint:wrapcheck // ours
}

// pass reads all records once.
func (t *tokens) pass(ctx context.Context, step string, f func(record) error) error {
	t.sequence, t.read = 0, 0
	for _, s := range t.sources {
		err := s.each(ctx, &t.read, func(r record) error {
			if t.sequence++; t.sequence%1024 == 0 {
				if ctx.Err() != nil {
					return ctx.Err() //nolint:wrapcheck // the caller's own
				}
				t.importer.progress(step, t.read, t.total)
			}
			return f(r)
		})
		if err != nil {
			return err
		}
	}
	t.importer.progress(step, t.total, t.total)
	return nil
}

// learn is the first pass.
func (t *tokens) learn(r record) error {
	report := t.importer.report
	if r.refused != "" {
		report.add(r.app, whatToken, r.result, r.refused, 1)
		return nil
	}
	to, reason := targetOf(r.device, r.token)
	if reason != "" {
		report.add(r.app, whatToken, Rejected, reason, 1)
		return nil
	}
	if _, usable := channelOf(r.channel); !usable {
		report.add(r.app, whatToken, Noted, reasonBadChannel, 1)
	}
	tab := t.tables[r.app]
	if tab == nil {
		tab = &table{tokens: map[digest]fold{}, numbers: map[string]uint16{}}
		t.tables[r.app] = tab
	}
	number, ok := tab.numbers[to.platform]
	if !ok {
		if len(tab.platforms) > 1<<16-1 {
			return errVariety
		}
		number = uint16(len(tab.platforms))
		tab.platforms = append(tab.platforms, to.platform)
		tab.numbers[to.platform] = number
	}
	d := tokenDigest(r.token.text)
	was, again := tab.tokens[d]
	now := fold{t.sequence, number, to.rank, to.transport == schemas.APNS}
	if again {
		report.add(r.app, whatToken, Folded, reasonSameToken, 1)
		if was.rank > to.rank { // equal: the later one, as AirNotifier would have rewritten it
			now.platform, now.rank, now.apns = was.platform, was.rank, was.apns
		}
	}
	tab.tokens[d] = now
	return nil
}

func tokenDigest(token string) digest {
	sum := sha256.Sum256([]byte(token))
	return digest(sum[:len(digest{})])
}

// saying is what is said of one device at once.
type saying struct {
	device    schemas.Device
	platform  string
	keyID     string
	channel   string
	subscribe bool
	register  bool
}

// planner is the second pass.
type planner struct {
	tokens  *tokens
	batches chan<- []saying
	batch   []saying
}

func (p *planner) plan(ctx context.Context, r record) error {
	t := p.tokens
	if r.refused != "" {
		return nil
	}
	if _, reason := targetOf(r.device, r.token); reason != "" {
		return nil
	}
	var f fold
	if tab := t.tables[r.app]; tab != nil {
		f = tab.tokens[tokenDigest(r.token.text)]
	}
	if f.last < t.sequence {
		return errChanged
	}
	s := saying{
		device: schemas.Device{App: r.app, Transport: schemas.FCM, Token: r.token.text}, platform: t.tables[r.app].platforms[f.platform], keyID: r.keyID,
	}
	if f.apns {
		s.device.Transport = schemas.APNS
	}
	s.channel, _ = channelOf(r.channel)
	p.decide(&s, f.last == t.sequence)
	if !s.register && !s.subscribe {
		return nil
	}
	if p.batch = append(p.batch, s); len(p.batch) < sayAtOnce {
		return nil
	}
	return p.flush(ctx)
}

// decide says of a device what the log does not have, and counts it. Only a token's last record registers it, so that each is counted once.
func (p *planner) decide(s *saying, last bool) {
	im := p.tokens.importer
	report, state, app := im.report, im.state, s.device.App
	was := state.devices[state.device(s.device)]
	if last {
		switch was {
		case deviceNew:
			s.register = true
			report.add(app, whatToken, Imported, s.device.Transport.Word()+", "+s.platform, 1)
		case deviceRegistered:
			report.add(app, whatToken, Unchanged, reasonThere, 1)
		case deviceUnregistered:
			report.add(app, whatToken, Unchanged, reasonUnregister, 1)
		case deviceDead:
			report.add(app, whatToken, Unchanged, reasonDead, 1)
		}
	}
	if was == deviceUnregistered || was == deviceDead {
		return
	}
	k := state.subscription(s.device, s.channel)
	switch state.subscriptions[k] {
	case subscriptionCounted:
	case subscriptionInLog:
		report.add(app, whatSubscription, Unchanged, reasonSubscribed, 1)
	default:
		s.subscribe = true
		report.add(app, whatSubscription, Imported, "", 1)
	}
	state.subscriptions[k] = subscriptionCounted
}

func (p *planner) flush(ctx context.Context) error {
	if len(p.batch) == 0 {
		return nil
	}
	select {
	case p.batches <- p.batch:
		p.batch = make([]saying, 0, sayAtOnce)
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
}

// say appends a batch. The registration comes last, so that a device never stands there without its channel.
func (im *importer) say(ctx context.Context, batch []saying) error {
	if im.options.DryRun {
		return nil
	}
	if err := im.room(); err != nil {
		return err
	}
	now := im.options.Now.UnixMicro()
	err := im.log.Append(ctx, func(out *schemas.Out) {
		for i := range batch {
			s := &batch[i]
			d := s.device
			if s.subscribe {
				out.ChannelSubscribed(&pushv1.ChannelSubscribed{
					App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token,
					Channel: s.channel, KeyId: s.keyID, SubscribedAtUs: now,
				})
			}
			if s.register {
				out.TokenRegistered(&pushv1.TokenRegistered{
					App: d.App, Transport: d.Transport, Environment: d.Environment, Token: d.Token,
					Platform: s.platform, KeyId: s.keyID, RegisteredAtUs: now,
				})
			}
		}
	})
	if err != nil {
		return err //nolint:wrapcheck // the log says it all
	}
	return nil
}
