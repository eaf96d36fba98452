package pebble

import (
	"fmt"
	"log/slog"
)

// logger hands Pebble's words to slog. They name files and sizes; keys are masked by redacted.
type logger struct{ log *slog.Logger }

func (l logger) Infof(format string, args ...any) {
	l.log.Debug("device store engine", "detail", fmt.Sprintf(format, args...))
}

func (l logger) Errorf(format string, args ...any) {
	l.log.Error("device store engine failed", "detail", fmt.Sprintf(format, args...))
}

// Fatalf may not return: Pebble cannot go on without its log, and the process with it. The directory stays as a crash leaves
// it, which the next start reads.
func (l logger) Fatalf(format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	l.log.Error("device store engine cannot go on", "detail", detail)
	panic("device store engine cannot go on: " + detail)
}

// redacted keeps tokens out of Pebble's messages.
func redacted(key []byte) fmt.Formatter { return maskedKey(len(key)) }

type maskedKey int

// Format prints the key's length alone.
func (k maskedKey) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "key of %d bytes", int(k)) }
