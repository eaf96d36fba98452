package simulator

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Ledger records every push that was accepted, on file before it is answered: a write is in the page cache when Append
// returns, and so survives the process, though not the machine. In memory it keeps counts alone, 25 to 32 bytes for each
// distinct push to a token of its own, 10 to 13 for one more to a known token. Safe for concurrent use.
type Ledger struct {
	logger *slog.Logger

	mu      sync.Mutex
	records appendFile
	names   appendFile
	apps    []*appCounts
	byName  map[appName]uint16
	tokens  countTable // by service's provider and token: pushes
	pushes  countTable // by app, token and id
	damaged int
	buf     []byte
	batch   []countedRecord
	fetched uint64 // keeps the compiler from leaving fetch out
	last    appName
	lastApp uint16
	closed  bool
}

type appCounts struct {
	name appName
	AppSummary
}

// AppSummary is what the ledger says of one app at one provider and environment.
type AppSummary struct {
	Provider    Provider `json:"provider"`
	Environment string   `json:"environment,omitempty"`
	App         string   `json:"app"`
	Accepted    int64    `json:"accepted"`
	Unique      int64    `json:"unique"`  // pairs of token and notification id
	Repeats     int64    `json:"repeats"` // accepted − unique
	Unanswered  int64    `json:"unanswered"`
	FirstUS     int64    `json:"first_us,omitempty"` // Unix microseconds
	LastUS      int64    `json:"last_us,omitempty"`
}

// Summary is what the ledger says in all.
type Summary struct {
	Accepted   int64        `json:"accepted"`
	Unique     int64        `json:"unique"`
	Repeats    int64        `json:"repeats"`
	Unanswered int64        `json:"unanswered"` // of the accepted: their connection was cut on purpose before the answer
	Tokens     int64        `json:"tokens"`     // distinct
	FirstUS    int64        `json:"first_us,omitempty"`
	LastUS     int64        `json:"last_us,omitempty"`
	Apps       []AppSummary `json:"apps"`
	Damaged    int          `json:"damaged_records"` // unreadable ones in the middle of the file at the start
	FileBytes  int64        `json:"file_bytes"`
	Memory     int          `json:"memory_bytes"`
}

// Of sums up one provider.
func (s Summary) Of(p Provider) (sum AppSummary) {
	sum.Provider = p
	for _, a := range s.Apps {
		if a.Provider == p {
			sum.add(&a)
		}
	}
	return sum
}

func (s *AppSummary) add(a *AppSummary) {
	s.Accepted += a.Accepted
	s.Unique += a.Unique
	s.Repeats += a.Repeats
	s.Unanswered += a.Unanswered
	if s.FirstUS == 0 || a.FirstUS != 0 && a.FirstUS < s.FirstUS {
		s.FirstUS = a.FirstUS
	}
	s.LastUS = max(s.LastUS, a.LastUS)
}

// Names of the ledger's files in its directory.
const (
	ledgerFile     = "ledger.dat"
	ledgerAppsFile = "ledger-apps.jsonl"
)

// ErrClosed is returned after Close.
var ErrClosed = errors.New("the ledger is closed")

// TokenHash is how the ledger names a token.
func TokenHash(token string) uint64 { return xxhash.Sum64String(token) }

// OpenLedger opens the ledger of a directory, or starts one, and reads it whole: 2 µs a push on a busy machine. A torn tail,
// as a killed process leaves it, is cut off and logged. One process at a time.
func OpenLedger(dir string, logger *slog.Logger) (*Ledger, error) {
	l := &Ledger{logger: logger, byName: map[appName]uint16{}}
	l.tokens.counts = true
	var err error
	if l.names.f, err = openFile(dir, ledgerAppsFile); err != nil {
		return nil, err
	}
	if l.records.f, err = openFile(dir, ledgerFile); err != nil {
		_ = l.names.f.Close()
		return nil, err
	}
	if err := l.load(); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("read the ledger in %s: %w", dir, err)
	}
	return l, nil
}

func openFile(dir, name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	return f, nil
}

func (l *Ledger) load() error {
	names, size, err := readApps(l.names.f)
	if err != nil {
		return fmt.Errorf("%s: %w", ledgerAppsFile, err)
	}
	if err := l.names.truncate(size); err != nil {
		return err
	}
	for _, n := range names {
		l.knowApp(n)
	}
	whole, damaged, err := readRecords(l.records.f, func(r *record) {
		if int(r.app) >= len(l.apps) {
			l.damaged++ // its app's line was lost, with a machine and not a process
			return
		}
		l.count(&countedRecord{*r, tokenKey(l.apps[r.app].Provider, r.token), r.key()})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", ledgerFile, err)
	}
	l.damaged += damaged
	end, err := l.records.f.Stat()
	if err != nil {
		return err
	}
	if torn := end.Size() - whole; torn > 0 || l.damaged > 0 {
		l.logger.Warn("ledger repaired", "torn_bytes", torn, "damaged_records", l.damaged)
	}
	if err := l.records.truncate(whole); err != nil {
		return err
	}
	if whole == 0 {
		return l.records.write(ledgerHeader())
	}
	return nil
}

// Append records a batch in one write. On an error nothing of the batch is recorded, and its pushes must not be answered with
// success.
func (l *Ledger) Append(batch ...Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.buf, l.batch = l.buf[:0], l.batch[:0]
	for i := range batch {
		r, err := l.record(&batch[i])
		if err != nil {
			return fmt.Errorf("record an app's name: %w", err)
		}
		l.batch = append(l.batch, countedRecord{record: r, tokenKey: tokenKey(batch[i].Service, r.token), pushKey: r.key()})
		l.buf = r.append(l.buf)
	}
	if err := l.records.write(l.buf); err != nil {
		return fmt.Errorf("record pushes: %w", err)
	}
	l.fetch()
	for i := range l.batch {
		l.count(&l.batch[i])
	}
	return nil
}

// countedRecord is a record and where it is counted.
type countedRecord struct {
	record
	tokenKey, pushKey uint64
}

// fetch reads the slots of a batch before they are written: these are two places in hundreds of megabytes for each push, and
// reads that do not depend on each other wait for the memory together.
func (l *Ledger) fetch() {
	var sum uint64
	for i := range l.batch {
		sum += l.tokens.peek(l.batch[i].tokenKey) ^ l.pushes.peek(l.batch[i].pushKey)
	}
	l.fetched = sum
}

// record translates an entry, and writes down its app where it is new: before the first record that names it.
func (l *Ledger) record(e *Entry) (record, error) {
	name := appName{serviceAPNS, e.App}
	switch {
	case e.Service == FCM:
		name.Service = serviceFCM
	case e.Sandbox:
		name.Service = serviceSandbox
	}
	if len(l.apps) > 0 && name == l.last {
		return record{l.lastApp, name.Service, e.Unanswered, e.TimeUS, e.Token, e.ID, e.Body}, nil
	}
	app, known := l.byName[name]
	if !known {
		if len(l.apps) > math.MaxUint16 {
			return record{}, errors.New("more than 65,536 apps: reset the ledger")
		}
		line, err := json.Marshal(name)
		if err != nil {
			return record{}, err
		}
		if err := l.names.write(append(line, '\n')); err != nil {
			return record{}, err
		}
		app = l.knowApp(name)
	}
	l.last, l.lastApp = name, app
	return record{app, name.Service, e.Unanswered, e.TimeUS, e.Token, e.ID, e.Body}, nil
}

func (l *Ledger) knowApp(name appName) uint16 {
	app := uint16(len(l.apps))
	l.byName[name] = app
	l.apps = append(l.apps, &appCounts{name, AppSummary{Provider: name.Service.provider(), Environment: name.Service.environment(), App: name.Name}})
	return app
}

func (l *Ledger) count(r *countedRecord) {
	a := l.apps[r.app]
	a.Accepted++
	if r.unanswered {
		a.Unanswered++
	}
	if a.FirstUS == 0 || r.timeUS < a.FirstUS {
		a.FirstUS = r.timeUS
	}
	a.LastUS = max(a.LastUS, r.timeUS)
	l.tokens.add(r.tokenKey)
	if l.pushes.add(r.pushKey) == 0 {
		a.Unique++
	} else {
		a.Repeats++
	}
}

// tokenKey tells the same string at two providers apart.
func tokenKey(p Provider, token uint64) uint64 {
	if p == FCM {
		return mix(token ^ 0x46434d)
	}
	return mix(token)
}

// key identifies app, token and notification.
func (r *record) key() uint64 {
	var b [26]byte
	binary.LittleEndian.PutUint16(b[:], r.app)
	binary.LittleEndian.PutUint64(b[2:], r.token)
	copy(b[10:], r.id[:])
	return xxhash.Sum64(b[:])
}
