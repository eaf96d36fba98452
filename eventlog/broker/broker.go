// Package broker is the embedded Kafka of `campanile up`: kfake, the broker of the franz-go project, in this process, with the
// guards that make its data directory safe to keep. This process reaches it in memory, others by a unix socket that only this user can
// open.
//
// kfake alone loses or tears what a killed process was writing. This package repairs a directory after an unclean stop
// (recover.go), compacts so that a crash in the middle loses nothing (compact.go), and deletes what is old without ever emptying
// a partition, whose offsets kfake would then start again at zero (retain.go).
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Options say where the broker keeps its log and how much of it. The zero value of each but Dir works.
type Options struct {
	// Dir is the data directory, created if missing. One process at a time has it.
	Dir string
	// Fsync makes every batch durable before it is acknowledged. Without it, what the machine had not written out is lost with
	// a power cut, but not with a killed process.
	Fsync bool
	// MaxBytes is the size of the log at which Full says so; zero means 1 GiB. The log is read through memory at start.
	MaxBytes int64
	// MaxMemory bounds, in bytes, the log that Open is willing to load; zero means three quarters of the machine's memory, or of
	// its cgroup's.
	MaxMemory int64
	// MinFree is the space, in bytes, that is left free on the disk; zero means 256 MiB.
	MinFree int64
	// SegmentBytes is the size at which a file of the log is closed and the next begun; zero means 16 MiB.
	SegmentBytes int64
	// CompactGrowth is by how many bytes at least the compacted topics grow before they are compacted again; zero means 16 MiB.
	// They must also have doubled. While much is written that waits, until three quarters of MaxBytes are used.
	CompactGrowth int64
	// SweepEvery is the time between two looks at retention and compaction; zero means a minute.
	SweepEvery time.Duration
	// Logger gets what the broker has to say; nil means nobody does.
	Logger *slog.Logger
}

const (
	defaultMaxBytes      = 1 << 30
	defaultMinFree       = 256 << 20
	defaultSegmentBytes  = 16 << 20
	defaultCompactGrowth = 16 << 20
	century              = "3153600000000" // milliseconds: what kfake must not do by itself, it does once in a hundred years
)

// Broker is a running embedded broker. Its methods may be called from any goroutine.
type Broker struct {
	opts    Options
	log     *slog.Logger
	cluster *kfake.Cluster
	lock    *os.File
	socket  socket
	door    *door
	unclean bool
	// rebooted: unclean, and the machine may have been restarted since.
	rebooted bool
	sink     *kfakeLog
	size     sizer

	sweeping sync.Mutex
	seen     traffic // at the last sweep

	stateMu sync.Mutex
	state   state
	paused  atomic.Pointer[func()] // what to do while kfake waits: see compactNow
	onStep  func(step string)      // nil but in tests

	stop   context.CancelFunc // of the sweeper
	swept  sync.WaitGroup
	failed atomic.Pointer[error]
	closed sync.Once
	saved  chan struct{} // closed when the cluster has saved itself
	err    error         // of closing
}

// Open starts the broker on a data directory and returns when clients can connect. It repairs what an unclean stop left.
// ErrLocked, ErrTooBig and ErrNoSpace say why it refuses.
func Open(o Options) (*Broker, error) {
	o = o.withDefaults()
	if o.Dir == "" {
		return nil, errors.New("open the embedded broker: no data directory")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the embedded broker: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	b, err := open(o, lock)
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return b, nil
}

func (o Options) withDefaults() Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.MinFree <= 0 {
		o.MinFree = defaultMinFree
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.CompactGrowth <= 0 {
		o.CompactGrowth = defaultCompactGrowth
	}
	if o.SweepEvery <= 0 {
		o.SweepEvery = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// storeDir is kfake's own directory.
func storeDir(dir string) string { return filepath.Join(dir, "store") }

func open(o Options, lock *os.File) (*Broker, error) {
	b := &Broker{opts: o, log: o.Logger, lock: lock, saved: make(chan struct{}), size: sizer{dir: o.Dir, minFree: o.MinFree, maxBytes: o.MaxBytes}}
	b.sink = &kfakeLog{log: o.Logger}
	var err error
	if b.state, err = readState(o.Dir); err != nil {
		return nil, err
	}
	if b.unclean, b.rebooted, err = isDirty(o.Dir); err != nil {
		return nil, err
	}
	if err := restoreCompaction(o.Dir, o.Logger); err != nil {
		return nil, fmt.Errorf("undo an interrupted compaction in %s: %w", o.Dir, err)
	}
	if err := b.checkMemory(); err != nil {
		return nil, err
	}
	if b.unclean {
		fixed, err := repair(storeDir(o.Dir))
		if err != nil {
			return nil, fmt.Errorf("repair the log in %s after an unclean stop: %w", o.Dir, err)
		}
		o.Logger.Warn("the log was not closed cleanly: repaired", "transactions_committed", fixed.committed,
			"transactions_aborted", fixed.aborted, "index_entries", fixed.indexEntries, "partitions", fixed.partitions, "state_logs", fixed.stateLogs)
	}
	if err := markDirty(o.Dir); err != nil {
		return nil, err
	}
	b.state.Boots++
	if err := writeState(o.Dir, b.state); err != nil {
		return nil, err
	}
	if b.socket, err = newSocket(o.Dir); err != nil {
		return nil, err
	}
	outside, err := b.socket.listen()
	if err == nil {
		b.door = newDoor(outside)
		if err = b.start(); err != nil {
			_ = b.door.Close()
		}
	}
	if err != nil {
		b.socket.remove()
		return nil, err
	}
	return b, nil
}

func (b *Broker) start() error {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID("campanile"),
		kfake.DataDir(storeDir(b.opts.Dir)),
		kfake.WithLogger(b.sink),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return b.door, nil }),
		kfake.BrokerConfigs(map[string]string{
			"log.cleaner.backoff.ms": century, // its compaction is not crash-safe: ours runs
			"log.retention.ms":       "-1",    // its retention can empty a partition: ours runs
			"log.retention.bytes":    "-1",
			"offset.retention.ms":    century, // embedded keeps offsets for ever
			"log.segment.bytes":      fmt.Sprint(b.opts.SegmentBytes),
			// An id unused for so long gets a new producer id; 32 bits of milliseconds are the most kfake can read.
			"transactional.id.expiration.ms": "2147483647",
		}),
	}
	if b.opts.Fsync {
		opts = append(opts, kfake.SyncWrites())
	}
	began := time.Now()
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return fmt.Errorf("start the embedded broker on %s: %w", b.opts.Dir, err)
	}
	b.cluster = cluster
	b.guardRequests()
	debug.FreeOSMemory() // the whole log went through memory
	b.size.refresh(time.Now())
	b.log.Info("the embedded broker is up", "dir", b.opts.Dir, "log_bytes", b.size.bytes.Load(), "unclean", b.unclean,
		"boots", b.state.Boots, "load_ms", time.Since(began).Milliseconds())

	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	b.swept.Go(func() { b.sweep(ctx) })
	return nil
}

// Unclean reports whether the process before this one did not close the log.
func (b *Broker) Unclean() bool { return b.unclean }

// Rebooted reports whether the log was not closed cleanly and the machine may have gone down with it. What a killed process leaves is
// whole after the repair; what a machine had not written out is lost, and no repair can know of it.
func (b *Broker) Rebooted() bool { return b.rebooted }

// Boots counts the starts on this data directory, from 1; it never goes back.
func (b *Broker) Boots() int64 { return b.state.Boots }

// Full says why nothing more should be accepted, or nil. It is cheap enough to ask for every request.
func (b *Broker) Full() error {
	if err := b.failed.Load(); err != nil {
		return *err
	}
	return b.size.full(time.Now())
}

// Pressed reports whether three quarters of the budget are used: time to give up what can be.
func (b *Broker) Pressed() bool {
	b.size.look(time.Now())
	return b.size.bytes.Load() >= b.opts.MaxBytes/4*3
}

// Bytes is the size of the data directory, at most a second old.
func (b *Broker) Bytes() int64 {
	b.size.look(time.Now())
	return b.size.bytes.Load()
}

// MaxBytes is the size at which the log takes nothing more.
func (b *Broker) MaxBytes() int64 { return b.size.maxBytes }

// FreeBytes is the room on the disk under the log, at most a second old.
func (b *Broker) FreeBytes() int64 {
	b.size.look(time.Now())
	return b.size.free.Load()
}

// MinFreeBytes is the room that must stay free: below it, the log takes nothing more.
func (b *Broker) MinFreeBytes() int64 { return b.size.minFree }

// Close saves the log and releases the directory. Close every client first: they retry what has no answer. It returns ctx.Err()
// when ctx ends before all is saved; the saving goes on, and the next start may find the directory unclean.
func (b *Broker) Close(ctx context.Context) error {
	b.closed.Do(func() {
		b.stop()
		go func() {
			defer close(b.saved)
			b.swept.Wait()
			b.cluster.Close()
			b.err = b.release()
		}()
	})
	select {
	case <-b.saved:
		return b.err
	case <-ctx.Done():
		return fmt.Errorf("close the embedded broker: %w", ctx.Err())
	}
}

// release gives the directory back. What could not be saved leaves it dirty, so that the next start repairs it.
func (b *Broker) release() error {
	b.socket.remove()
	var err error
	if saving := b.sink.lastError(); saving != "" {
		err = fmt.Errorf("save the log in %s: %s", b.opts.Dir, saving)
	} else if b.failed.Load() == nil {
		err = clearDirty(b.opts.Dir)
	}
	return errors.Join(err, b.lock.Close())
}

// fail stops the broker from taking anything more: every request from now on loses its connection.
func (b *Broker) fail(err error) {
	if b.failed.CompareAndSwap(nil, &err) {
		b.log.Error("the embedded broker stopped taking requests: restart it", "error", err.Error())
	}
}
