package simulator

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Summary counts what is there now.
func (l *Ledger) Summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all AppSummary
	s := Summary{
		Apps: make([]AppSummary, 0, len(l.apps)), Tokens: int64(l.tokens.n), Damaged: l.damaged,
		FileBytes: l.records.size, Memory: l.tokens.bytes() + l.pushes.bytes(),
	}
	for _, a := range l.apps {
		if a.Accepted == 0 {
			continue // since the last Reset
		}
		s.Apps = append(s.Apps, a.AppSummary)
		all.add(&a.AppSummary)
	}
	s.Accepted, s.Unique, s.Repeats, s.Unanswered = all.Accepted, all.Unique, all.Repeats, all.Unanswered
	s.FirstUS, s.LastUS = all.FirstUS, all.LastUS
	return s
}

// Counts is how many pushes each token of a provider got, in the order of tokens. APNs tokens count in both environments
// together, and in either case of their digits.
func (l *Ledger) Counts(p Provider, tokens ...string) []int {
	counts := make([]int, len(tokens))
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, token := range tokens {
		if p == APNS {
			token = strings.ToLower(token)
		}
		counts[i] = int(l.tokens.count(tokenKey(p, TokenHash(token))))
	}
	return counts
}

// Each calls f with every push in the order of acceptance, as the file holds them up to the moment of the call, until f
// returns false. It reads the file beside the writer and holds no lock while f runs.
func (l *Ledger) Each(ctx context.Context, f func(e *Entry) bool) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	file, size := l.records.f, l.records.size
	names := make([]appName, len(l.apps))
	for i, a := range l.apps {
		names[i] = a.name
	}
	l.mu.Unlock()

	const stride = 4096 // records read at once
	buf := make([]byte, stride*recordSize)
	for at := int64(recordSize); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if n < recordSize {
			return fmt.Errorf("read the ledger: %w", err)
		}
		for b := buf[:n]; len(b) >= recordSize; b, at = b[recordSize:], at+recordSize {
			r, ok := parseRecord(b)
			if !ok || int(r.app) >= len(names) {
				continue // counted as damaged when the ledger was opened
			}
			if e := r.entry(names[r.app]); !f(&e) {
				return nil
			}
		}
	}
	return nil
}

func (r *record) entry(name appName) Entry {
	return Entry{
		TimeUS: r.timeUS, Service: name.Service.provider(), Sandbox: name.Service == serviceSandbox, App: name.Name,
		Token: r.token, ID: r.id, Body: r.body, Unanswered: r.unanswered,
	}
}

// exportHeader names the columns of Export.
const exportHeader = "time_us,provider,environment,app,token_hash,notification_id,body_hash,unanswered\n"

// Export writes the ledger as CSV, in the order of acceptance.
func (l *Ledger) Export(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	_, failed := out.WriteString(exportHeader)
	var line []byte
	err := l.Each(ctx, func(e *Entry) bool {
		line = appendCSV(line[:0], e)
		_, failed = out.Write(line)
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		err = out.Flush()
	}
	return err
}

func appendCSV(b []byte, e *Entry) []byte {
	environment := ""
	if e.Service == APNS {
		environment = Production
		if e.Sandbox {
			environment = Sandbox
		}
	}
	b = strconv.AppendInt(b, e.TimeUS, 10)
	b = append(b, ',')
	b = append(b, e.Service...)
	b = append(b, ',')
	b = append(b, environment...)
	b = append(b, ',')
	b = append(b, e.App...) // topics and projects have no commas or quotes: the rules see to that
	b = append(b, ',')
	b = appendHex64(b, e.Token)
	b = append(b, ',')
	b = appendUUID(b, e.ID)
	b = append(b, ',')
	b = appendHex64(b, e.Body)
	b = append(b, ',')
	b = strconv.AppendBool(b, e.Unanswered)
	return append(b, '\n')
}

func appendHex64(b []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[v>>shift&0xf])
	}
	return b
}

func appendUUID(b []byte, id [16]byte) []byte {
	for i, cut := range []int{0, 4, 6, 8, 10} {
		if i > 0 {
			b = append(b, '-')
		}
		end := []int{4, 6, 8, 10, 16}[i]
		b = hex.AppendEncode(b, id[cut:end])
	}
	return b
}

// Reset forgets everything, on file too.
func (l *Ledger) Reset() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if err := l.records.truncate(recordSize); err != nil {
		return fmt.Errorf("reset the ledger: %w", err)
	}
	// The file of apps stays: a name more than is used does no harm, and the other order could lose one that is.
	l.tokens, l.pushes, l.damaged = countTable{counts: true}, countTable{}, 0
	for _, a := range l.apps {
		a.AppSummary = AppSummary{Provider: a.Provider, Environment: a.Environment, App: a.App}
	}
	return nil
}

// Close closes the files. Everything is written by then.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	errRecords, errNames := l.records.f.Close(), l.names.f.Close()
	if errRecords != nil {
		return fmt.Errorf("close the ledger: %w", errRecords)
	}
	if errNames != nil {
		return fmt.Errorf("close the ledger: %w", errNames)
	}
	return nil
}
