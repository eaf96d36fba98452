package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kfake compacts a partition by deleting its files and writing new ones: a crash in between loses what had been there. So the
// files are hard-linked first:
//
//	compacting.tmp   links are being made; the partitions are untouched
//	compacting       the links are complete; the partitions may be in any state, and a start restores them from here
//	compacting.done  the compaction is complete; the links are being removed
//
// The names change by one rename each. kfake also takes what an open transaction wrote for the truth, and would lose both the
// old and the new if it aborted, so that compaction runs only while no compacted topic has an open transaction.
const (
	linking    = "compacting.tmp"
	compacting = "compacting"
	compacted  = "compacting.done"
)

// Steps of a compaction, for tests that crash at each.
const (
	stepLinked    = "linked"
	stepReady     = "ready"
	stepCompacted = "compacted"
	stepDone      = "done"
)

// compactNow compacts while kfake's only goroutine waits for us: it waits for the look of guardRequests at a request. errBusy
// says that a transaction was open.
func (b *Broker) compactNow(ctx context.Context, cl *kgo.Client, topics []string) error {
	result := make(chan error, 1)
	job := func() { result <- b.compactPaused(topics) }
	b.paused.Store(&job)
	_, err := pauseRequest().RequestWith(ctx, cl)
	if b.paused.CompareAndSwap(&job, nil) { // it never came to our look
		return errors.Join(errors.New("compact the log: the broker was not paused"), err)
	}
	return <-result
}

// pauseRequest is a request that nobody else has a use for.
func pauseRequest() *kmsg.DescribeUserSCRAMCredentialsRequest {
	return kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
}

func (b *Broker) compactPaused(topics []string) error {
	ends, size, err := b.quiet(topics)
	if err != nil {
		return err
	}
	free, err := freeBytes(b.opts.Dir)
	if err != nil {
		return err
	}
	if free < size+b.opts.MinFree {
		return fmt.Errorf("compact the log: %w: %s free, %s needed", ErrNoSpace, human(free), human(size+b.opts.MinFree))
	}
	if err := b.linkAll(ends); err != nil {
		return fmt.Errorf("compact the log: %w", err)
	}
	b.sink.takeRebuildError()
	b.cluster.Compact()
	b.at(stepCompacted)
	if err := b.checkCompacted(ends); err != nil {
		b.fail(fmt.Errorf("compaction failed, and the log is as before after a restart: %w", err))
		return err
	}
	if err := finishCompaction(b.opts.Dir); err != nil {
		b.fail(err)
		return err
	}
	b.at(stepDone)
	return b.setCompacted(b.compactedBytes(topics))
}

// partition names one partition of the store.
type partition struct {
	topic  string
	number int32
}

// folder is the name of kfake's directory of the partition.
func (p partition) folder() string {
	return url.PathEscape(p.topic) + "-" + strconv.Itoa(int(p.number))
}

// quiet returns the end of each partition, and their size; errBusy if a transaction is open in one.
func (b *Broker) quiet(topics []string) (ends map[partition]int64, size int64, err error) {
	ends = make(map[partition]int64)
	for _, t := range topics {
		for _, info := range b.cluster.PartitionInfos(t) {
			if info.LastStableOffset != info.HighWatermark {
				return nil, 0, errBusy
			}
			ends[partition{t, info.Partition}] = info.HighWatermark
			size += info.NumBytes
		}
	}
	return ends, size, nil
}

// checkCompacted: kfake only logs what it could not write.
func (b *Broker) checkCompacted(ends map[partition]int64) error {
	if said := b.sink.takeRebuildError(); said != "" {
		return errors.New(said)
	}
	for p, end := range ends {
		info := b.cluster.PartitionInfo(p.topic, p.number)
		if info == nil || info.HighWatermark != end {
			return fmt.Errorf("%s[%d] ended at %d before the compaction, and does not now", p.topic, p.number, end)
		}
	}
	return nil
}

func (b *Broker) linkAll(ends map[partition]int64) error {
	to := filepath.Join(b.opts.Dir, linking)
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("clear %s: %w", to, err)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return fmt.Errorf("link the log's files: %w", err)
	}
	for p := range ends {
		from := filepath.Join(storeDir(b.opts.Dir), "partitions", p.folder())
		if err := linkFiles(from, filepath.Join(to, p.folder())); err != nil {
			return err
		}
	}
	b.at(stepLinked)
	if err := rename(b.opts.Dir, linking, compacting); err != nil {
		return err
	}
	b.at(stepReady)
	return nil
}

// linkFiles makes to hold links to all files of from; a partition that was never written has no directory.
func linkFiles(from, to string) error {
	files, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("link the log's files: %w", err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("link the log's files: %w", err)
	}
	for _, f := range files {
		if err := os.Link(filepath.Join(from, f.Name()), filepath.Join(to, f.Name())); err != nil {
			return fmt.Errorf("link the log's files: %w", err)
		}
	}
	return syncDir(to)
}

func rename(dir, from, to string) error {
	if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		return fmt.Errorf("mark a step of compaction: %w", err)
	}
	return syncDir(dir)
}

func finishCompaction(dir string) error {
	if err := rename(dir, compacting, compacted); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, compacted)); err != nil {
		return fmt.Errorf("remove the links of a compaction: %w", err)
	}
	return nil
}

// restoreCompaction puts back what an interrupted compaction had linked. It can itself be interrupted and run again.
func restoreCompaction(dir string, log *slog.Logger) error {
	for _, leftover := range []string{linking, compacted} {
		if err := os.RemoveAll(filepath.Join(dir, leftover)); err != nil {
			return fmt.Errorf("remove %s: %w", leftover, err)
		}
	}
	links := filepath.Join(dir, compacting)
	folders, err := os.ReadDir(links)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", links, err)
	}
	for _, f := range folders {
		to := filepath.Join(storeDir(dir), "partitions", f.Name())
		if err := os.RemoveAll(to); err != nil {
			return fmt.Errorf("clear %s: %w", to, err)
		}
		if err := linkFiles(filepath.Join(links, f.Name()), to); err != nil {
			return err
		}
	}
	log.Warn("a compaction was interrupted: the log is as it was before it", "partitions", len(folders))
	return finishCompaction(dir)
}

// at tells a test where a compaction is.
func (b *Broker) at(step string) {
	if b.onStep != nil {
		b.onStep(step)
	}
}

func (b *Broker) lastCompacted() int64 {
	b.stateMu.Lock()
	defer b.stateMu.Unlock()
	return b.state.Compacted
}

func (b *Broker) setCompacted(size int64) error {
	b.stateMu.Lock()
	defer b.stateMu.Unlock()
	b.state.Compacted = size
	return writeState(b.opts.Dir, b.state)
}
