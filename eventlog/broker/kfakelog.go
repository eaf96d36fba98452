package broker

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// kfakeLog hands kfake's words to slog and remembers those that say that something was not written.
type kfakeLog struct {
	log *slog.Logger

	mu       sync.Mutex
	unsaved  string // the last error of saving
	rebuilds string // the last complaint of compaction
}

// Logf is kfake.Logger. kfake logs neither keys nor values.
func (k *kfakeLog) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case kfake.LogLevelError:
		to = slog.LevelError
	case kfake.LogLevelWarn:
		to = slog.LevelWarn
	case kfake.LogLevelNone, kfake.LogLevelInfo, kfake.LogLevelDebug:
		if !k.log.Enabled(context.Background(), to) {
			return
		}
	}
	said := fmt.Sprintf(format, args...)
	if strings.HasPrefix(said, "txn: EndTxn slow") { // milliseconds on a busy machine: nobody has to look
		to = slog.LevelDebug
	}
	k.mu.Lock()
	switch {
	case strings.HasPrefix(said, "persist to disk"):
		k.unsaved = said
	case strings.HasPrefix(said, "rebuildSegments"):
		k.rebuilds = said
	}
	k.mu.Unlock()
	k.log.Log(context.Background(), to, "kfake", "said", said)
}

func (k *kfakeLog) lastError() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.unsaved
}

// takeRebuildError returns and forgets the last complaint of compaction.
func (k *kfakeLog) takeRebuildError() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	said := k.rebuilds
	k.rebuilds = ""
	return said
}
