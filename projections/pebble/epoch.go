package pebble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/campanile-push/campanile/projections"
	"github.com/campanile-push/campanile/schemas"
)

// Epoch 0 stands in the store's directory itself, epoch n in its folder epoch-n. The file active-epoch, which is replaced by a rename, says
// which one serves; without it, 0. A file kept-n says that epoch n is to stay; every other epoch that is not active is dropped at the next
// start, and when the next epoch is begun. Pebble passes over names that are not its own.
const (
	activeFile  = "active-epoch"
	epochPrefix = "epoch-"
	keptPrefix  = "kept-"
	lockFile    = "LOCK"
)

func (s *Store) epochDir(epoch int64) string {
	if epoch == 0 {
		return s.dir
	}
	return filepath.Join(s.dir, epochPrefix+strconv.FormatInt(epoch, 10))
}

func (s *Store) keptFile(epoch int64) string {
	return filepath.Join(s.dir, keptPrefix+strconv.FormatInt(epoch, 10))
}

func (s *Store) activeEpoch() (int64, error) {
	text, err := os.ReadFile(filepath.Join(s.dir, activeFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	epoch, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || epoch < 0 {
		return 0, fmt.Errorf("%s holds no number", filepath.Join(s.dir, activeFile))
	}
	return epoch, nil
}

// activate replaces the file that says which epoch serves. When it returns, that survives a power cut.
func (s *Store) activate(epoch int64) error {
	path := filepath.Join(s.dir, activeFile)
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.FormatInt(epoch, 10) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// epochs are the numbers of the names in the store's directory that begin with prefix.
func (s *Store) epochs(prefix string) ([]int64, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for _, e := range entries {
		number, found := strings.CutPrefix(e.Name(), prefix)
		if n, err := strconv.ParseInt(number, 10, 64); found && err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// dropLeftovers drops what builders left that did not come to an end.
func (s *Store) dropLeftovers() error {
	all, err := s.epochs(epochPrefix)
	if err != nil {
		return err
	}
	for _, epoch := range append(all, 0) {
		if epoch == s.current.epoch {
			continue
		}
		if _, err := os.Stat(s.keptFile(epoch)); err == nil {
			continue
		}
		if err := s.drop(epoch); err != nil {
			return fmt.Errorf("drop epoch %d: %w", epoch, err)
		}
	}
	return nil
}

// drop deletes the files of an epoch. Those of epoch 0 stand among the folders of the others.
func (s *Store) drop(epoch int64) error {
	if epoch > 0 {
		return os.RemoveAll(s.epochDir(epoch))
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || name == lockFile || strings.HasPrefix(name, activeFile) || strings.HasPrefix(name, keptPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// building is a projections.Epoch.
type building struct {
	s     *Store
	e     *engine
	ended bool
	at    func(step string) error // tests break off here; nil elsewhere
}

// BeginEpoch makes an empty epoch.
func (s *Store) BeginEpoch(ctx context.Context) (projections.Epoch, error) { return s.beginEpoch(ctx) }

func (s *Store) beginEpoch(ctx context.Context) (b *building, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.buildMu.Lock()
	defer s.buildMu.Unlock()
	if s.building {
		return nil, projections.ErrRebuilding
	}
	if err := s.dropLeftovers(); err != nil {
		return nil, fmt.Errorf("begin an epoch: %w", err)
	}
	next := s.current.epoch
	for _, prefix := range []string{epochPrefix, keptPrefix} {
		taken, err := s.epochs(prefix)
		if err != nil {
			return nil, fmt.Errorf("begin an epoch: %w", err)
		}
		for _, n := range taken {
			next = max(next, n)
		}
	}
	b = &building{s: s}
	if b.e, err = s.openEngine(next + 1); err != nil {
		return nil, fmt.Errorf("begin epoch %d: %w", next+1, err)
	}
	s.building = true
	return b, nil
}

// Number is the epoch's.
func (b *building) Number() int64 { return b.e.epoch }

// Applied is where the epoch stands.
func (b *building) Applied(context.Context) ([]int64, error) { return b.s.applied(b.e.db) }

// Apply folds a batch into the epoch.
func (b *building) Apply(ctx context.Context, in schemas.Batch) error {
	if err := b.s.checkDisk(); err != nil {
		return err
	}
	return b.e.apply(ctx, in)
}

func (e *engine) apply(ctx context.Context, in schemas.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	facts, err := projections.Read(in)
	if err != nil {
		return err
	}
	if err := e.applyFacts(in.Partition, facts); err != nil {
		return fmt.Errorf("apply %s[%d] up to %d to epoch %d: %w", in.Topic, in.Partition, facts.Next, e.epoch, err)
	}
	return nil
}

// Abandon drops the epoch.
func (b *building) Abandon(context.Context) error {
	if b.ended {
		return nil
	}
	b.end()
	return errors.Join(b.e.close(), b.s.drop(b.e.epoch))
}

// Kill lets go of the files as the end of the process does; for tests.
func (b *building) Kill() {
	if b.s.current != b.e {
		_ = b.e.close()
	}
}

func (b *building) end() {
	b.ended = true
	b.s.buildMu.Lock()
	b.s.building = false
	b.s.buildMu.Unlock()
}

func (b *building) step(name string) error {
	if b.at == nil {
		return nil
	}
	return b.at(name)
}

// Swap makes the epoch active. All calls wait while it levels the two, which is done twice, and replaces a file: some milliseconds.
func (b *building) Swap(ctx context.Context, o projections.SwapOptions,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) (done projections.Swapped, err error) {
	if err := b.e.db.Flush(); err != nil { // the most of it, while nobody waits
		return done, fmt.Errorf("flush epoch %d: %w", b.e.epoch, err)
	}
	done.Kept = true
	if done.Old, done.New, err = b.compare(ctx, read); err != nil {
		return done, fmt.Errorf("compare epoch %d: %w", b.e.epoch, err)
	}
	done.Compared = true
	if !done.Same() && !o.Force {
		return done, projections.ErrOther
	}
	keep := o.Keep || !done.Same()
	old, err := b.swap(ctx, keep, read)
	if err != nil {
		return done, fmt.Errorf("swap in epoch %d: %w", b.e.epoch, err)
	}
	b.end()
	done.Swapped = true
	if err := old.close(); err != nil || keep {
		return done, err
	}
	done.Kept = false
	if err := b.s.drop(old.epoch); err != nil {
		return done, fmt.Errorf("drop epoch %d: %w", old.epoch, err)
	}
	return done, nil
}

// compare sums up both epochs at the same offsets. While it reads them, everybody goes on.
func (b *building) compare(ctx context.Context,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) (old, rebuilt uint64, err error) {
	before, after, err := b.levelled(ctx, read)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, before.Close(), after.Close()) }()
	if old, err = checksum(ctx, before); err != nil {
		return 0, 0, err
	}
	if rebuilt, err = checksum(ctx, after); err != nil {
		return 0, 0, err
	}
	return old, rebuilt, b.step("compared")
}

// levelled returns snapshots of the serving epoch and of this one, at the same offsets.
func (b *building) levelled(ctx context.Context,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) (before, after *pebble.Snapshot, err error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if err := b.level(ctx, read); err != nil {
		return nil, nil, err
	}
	return b.s.current.db.NewSnapshot(), b.e.db.NewSnapshot(), nil
}

// level applies to the serving epoch and to this one what the other is ahead by. The caller holds mu.
func (b *building) level(ctx context.Context,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) error {
	of := func(e *engine) projections.Applier {
		return projections.Applier{Applied: func(context.Context) ([]int64, error) { return b.s.applied(e.db) }, Apply: e.apply}
	}
	_, err := projections.Level(ctx, of(b.s.current), of(b.e), read)
	return err
}

// swap returns the old epoch.
func (b *building) swap(ctx context.Context, keep bool,
	read func(ctx context.Context, partition int32, from, to int64, apply func(schemas.Batch) error) error,
) (old *engine, err error) {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.current
	if err := b.step("held"); err != nil {
		return nil, err
	}
	if err := b.level(ctx, read); err != nil {
		return nil, err
	}
	if err := b.e.db.LogData(nil, pebble.Sync); err != nil {
		return nil, err
	}
	if err := b.step("levelled"); err != nil {
		return nil, err
	}
	if keep {
		if err := os.WriteFile(s.keptFile(old.epoch), nil, 0o600); err != nil {
			return nil, err
		}
	}
	if err := s.activate(b.e.epoch); err != nil {
		return nil, err
	}
	if err := b.step("activated"); err != nil {
		return nil, err
	}
	s.current = b.e
	return old, nil
}
