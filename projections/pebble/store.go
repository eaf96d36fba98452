package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// Errors of the embedded store.
var (
	// ErrFormat says that a newer Campanile wrote the directory.
	ErrFormat = errors.New("the device store was written by a newer version of campanile: start that version, or delete the directory to rebuild it from the log")
	// ErrInUse says that the directory belongs to another store, mostly of another process that runs.
	ErrInUse = errors.New("another campanile uses this device store")
	// ErrDiskLow says that too little of the disk is free to write; it is temporary.
	ErrDiskLow = errors.New("too little of the disk is free")
)

const (
	format = 1 // of keys and rows; a change of either counts it up

	defaultCache   = 64 << 20
	defaultMinFree = 256 << 20 // room for the compactions that are due: memtables of 64 MiB, merged a few times over
	memTable       = 16 << 20
	memTables      = 4  // of memTable bytes: 64 MiB, the bound on what waits for the disk
	bloomBits      = 10 // a key: 1 % of misses read a block
	// blockBytes is four times Pebble's own: a broadcast reads every row of a block, and pays for each block once.
	blockBytes = 16 << 10
)

// Options of Open. The zero value but for Layout works.
type Options struct {
	// Layout of the topics; a store is built for one.
	Layout schemas.Layout
	// Fsync makes every Apply wait for the disk. Without it, the last batches before a crash may be missing together with
	// their offsets, and are applied again from the log.
	Fsync bool
	// CacheBytes bounds the block cache; zero means 64 MiB.
	CacheBytes int64
	// MinFreeBytes of the disk are left alone: below it Apply returns ErrDiskLow. Zero means 256 MiB, negative no bound.
	MinFreeBytes int64
	// Logger gets what Pebble has to say, without keys; nil drops it.
	Logger *slog.Logger
}

// Store is a projections.Epochs.
type Store struct {
	lock    *pebble.Lock // of dir: one process has all epochs
	dir     string
	layout  schemas.Layout
	options Options
	minFree int64
	locks   []sync.Mutex // one a partition: a partition's batches are applied one after the other

	mu       sync.RWMutex // held to read by every call, to write by a swap
	current  *engine
	building bool // guarded by buildMu
	buildMu  sync.Mutex
}

var _ projections.Epochs = (*Store)(nil)

// engine is one epoch's Pebble.
type engine struct {
	epoch int64
	dir   string
	lock  *pebble.Lock // nil: the store's own
	db    *pebble.DB
	write *pebble.WriteOptions
}

// use is the active epoch, until done is called.
func (s *Store) use() (e *engine, done func()) {
	s.mu.RLock()
	return s.current, s.mu.RUnlock
}

// Open opens or makes the store in dir, which must be the process's own. The caller closes it.
func Open(dir string, o Options) (*Store, error) {
	if err := o.Layout.Check(); err != nil {
		return nil, fmt.Errorf("open device store: %w", err)
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCache
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = defaultMinFree
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{dir: dir, layout: o.Layout, options: o, minFree: o.MinFreeBytes, locks: make([]sync.Mutex, o.Layout.Partitions)}
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open device store in %s: %w", dir, errors.Join(err, s.Close()))
	}
	return s, nil
}

// open leaves what it opened before an error to Close.
func (s *Store) open() (err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil { // tokens are personal data
		return err
	}
	// Locked here and not by pebble.Open, which leaves a goroutine behind when it is refused.
	if s.lock, err = pebble.LockDirectory(s.dir, vfs.Default); err != nil {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	active, err := s.activeEpoch()
	if err != nil {
		return err
	}
	if s.current, err = s.openEngine(active); err != nil {
		return err
	}
	return s.dropLeftovers()
}

// openEngine opens or makes an epoch.
func (s *Store) openEngine(epoch int64) (e *engine, err error) {
	e = &engine{epoch: epoch, dir: s.epochDir(epoch), write: pebble.NoSync}
	if s.options.Fsync {
		e.write = pebble.Sync
	}
	opts := engineOptions(s.options)
	opts.Lock = s.lock
	if epoch > 0 {
		if err := os.MkdirAll(e.dir, 0o700); err != nil {
			return nil, err
		}
		if e.lock, err = pebble.LockDirectory(e.dir, vfs.Default); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInUse, err)
		}
		opts.Lock = e.lock
	}
	if e.db, err = pebble.Open(e.dir, opts); err != nil {
		return nil, errors.Join(err, e.close())
	}
	if err := e.checkMeta(s.layout); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *engine) close() (err error) {
	if e.db != nil {
		err = e.db.Close()
	}
	if e.lock != nil {
		err = errors.Join(err, e.lock.Close())
	}
	return err
}

func engineOptions(o Options) *pebble.Options {
	comparer := *pebble.DefaultComparer
	comparer.FormatKey = redacted
	opts := &pebble.Options{
		Comparer:  &comparer,
		CacheSize: o.CacheBytes,
		// Pinned, so that an upgrade of Pebble alone does not make directories that an older Campanile cannot open.
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		MemTableSize:                memTable,
		MemTableStopWritesThreshold: memTables,
		Logger:                      logger{o.Logger},
	}
	opts.Levels[0].FilterPolicy, opts.Levels[0].BlockSize = bloom.FilterPolicy(bloomBits), blockBytes // deeper levels inherit both
	return opts
}

// checkMeta reads, or writes at the first start, what the directory was made with.
func (e *engine) checkMeta(l schemas.Layout) error {
	wrote, err := e.meta("format", format)
	if err != nil {
		return err
	}
	if wrote != format {
		return fmt.Errorf("format %d, known is %d: %w", wrote, format, ErrFormat)
	}
	partitions, err := e.meta("partitions", uint64(l.Partitions))
	if err != nil {
		return err
	}
	if partitions != uint64(l.Partitions) {
		return fmt.Errorf("%w: built for %d, the log has %d; delete the directory to rebuild it", projections.ErrLayout, partitions, l.Partitions)
	}
	return nil
}

// meta is the number under a name, set to initial where there is none.
func (e *engine) meta(name string, initial uint64) (uint64, error) {
	key := append([]byte{metaSpace}, name...)
	v, found, err := readUint64(e.db, key)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	if found {
		return v, nil
	}
	if err := e.db.Set(key, binary.BigEndian.AppendUint64(nil, initial), pebble.Sync); err != nil {
		return 0, fmt.Errorf("write %s: %w", name, err)
	}
	return initial, nil
}

// readUint64 reads eight bytes; found is false where the key is not there.
func readUint64(r pebble.Reader, key []byte) (v uint64, found bool, err error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if len(value) != 8 {
		return 0, false, errors.Join(errRow, closer.Close())
	}
	v = binary.BigEndian.Uint64(value)
	return v, true, closer.Close()
}

// checkDisk returns ErrDiskLow before the disk is full: Pebble ends the process when it cannot write its log.
func (s *Store) checkDisk() error {
	if s.minFree < 0 {
		return nil
	}
	usage, err := vfs.Default.GetDiskUsage(s.dir)
	if err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", s.dir, err)
	}
	if usage.AvailBytes < uint64(s.minFree) {
		return projections.Temporary(fmt.Errorf("%d bytes free under %s, %d wanted: %w", usage.AvailBytes, s.dir, s.minFree, ErrDiskLow))
	}
	return nil
}

// Close flushes nothing: what was applied is in Pebble's own log.
func (s *Store) Close() error {
	var err error
	if s.current != nil {
		err = s.current.close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("close device store: %w", err)
	}
	return nil
}
