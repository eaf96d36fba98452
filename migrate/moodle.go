package migrate

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/campanile-push/campanile/schemas"
)

// MoodleOptions say which of a site's devices to import, and how.
type MoodleOptions struct {
	Options
	// MobileApp is the bundle id whose rows are taken, such as com.moodle.moodlemobile. Empty: the one that is the app's name
	// but for its dots, as Moodle makes the app's name of it.
	MobileApp string
	// Channel is what the devices join; empty: default, or the channel of KeyID's claim.
	Channel string
	// KeyID is the access key to which the registrations are ascribed: the site's. It must be in force; the beginning of its id will do.
	KeyID string
}

// columns of Moodle's table user_devices that are read; enable is message_airnotifier_devices', where the two were joined.
const (
	columnMobileApp = "appid"
	columnPlatform  = "platform"
	columnToken     = "pushid"
	columnEnabled   = "enable"
)

// Moodle imports the devices of one Moodle site from CSV files of its table user_devices, with a line of column names. Options.App must be
// an app of state. It may run again, as AirNotifier may.
func Moodle(ctx context.Context, log Log, state *State, paths []string, o MoodleOptions) (*Report, error) {
	run := &moodle{importer: newImporter(log, state, o.Options), options: o, others: map[string]int64{}}
	if err := run.bind(); err != nil {
		return nil, err
	}
	t := &tokens{importer: run.importer}
	for _, path := range paths {
		t.sources = append(t.sources, source{path, func(_ context.Context, read *int64, say func(record) error) error {
			return run.each(path, read, say)
		}})
	}
	if err := t.run(ctx); err != nil {
		return nil, err
	}
	if run.taken == 0 && len(run.others) > 0 {
		return nil, fmt.Errorf("no row is of %s: the file has %s; name one with --mobile-app", run.wanted(), strings.Join(slices.Sorted(maps.Keys(run.others)), ", "))
	}
	run.report.sort()
	return run.report, nil
}

type moodle struct {
	*importer
	options MoodleOptions
	channel string
	taken   int64
	others  map[string]int64 // rows of other mobile apps
}

// bind finds the channel that the devices join.
func (m *moodle) bind() error {
	o := &m.options
	if !m.state.HasApp(o.App) {
		return fmt.Errorf("there is no app %q: `campanile app create %s` makes it", o.App, o.App)
	}
	m.channel = o.Channel
	if o.KeyID != "" {
		id, key, err := m.state.key(o.App, o.KeyID)
		switch {
		case err != nil:
			return err
		case key.channel != "" && m.channel != "":
			return errors.New("a site's key has a channel of its own: leave --channel out")
		case key.channel != "":
			m.channel = key.channel
		}
		o.KeyID = id
	}
	if m.channel == "" {
		m.channel = defaultChannel
	}
	if err := schemas.CheckChannel(m.channel); err != nil {
		return fmt.Errorf("channel: %w", err)
	}
	return nil
}

func (m *moodle) wanted() string {
	if m.options.MobileApp != "" {
		return m.options.MobileApp
	}
	return m.options.App
}

// mine reports whether a row is of the app: by its bundle id, or by what Moodle makes of it.
func (m *moodle) mine(bundle string) bool {
	if m.options.MobileApp != "" {
		return bundle == m.options.MobileApp
	}
	return bundle == m.options.App || strings.ReplaceAll(strings.ToLower(bundle), ".", "") == m.options.App
}

// each reads the rows of a file.
func (m *moodle) each(path string, read *int64, say func(record) error) error {
	r, err := openExport(path, read)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	rows, err := readRows(r)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for {
		row, err := rows.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errMalformed):
			row = nil
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := say(m.record(row)); err != nil {
			return err
		}
	}
}

// record decides what a row is; a nil row is a malformed one.
func (m *moodle) record(row map[string]string) record {
	r := record{app: m.options.App, keyID: m.options.KeyID, channel: value{kind: text, text: m.channel}}
	bundle := row[columnMobileApp]
	switch {
	case row == nil:
		r.refused, r.result = reasonMalformed, Rejected
	case !m.mine(bundle):
		if len(m.others) < 100 {
			m.others[bundle]++
		}
		r.refused, r.result = reasonOtherMobile, LeftOut
	case row[columnEnabled] == "0" || strings.EqualFold(row[columnEnabled], "false") || row[columnEnabled] == "f":
		r.refused, r.result = reasonDisabled, LeftOut
	}
	if r.refused == "" {
		m.taken++
	}
	r.device, r.token = value{kind: text, text: row[columnPlatform]}, value{kind: text, text: row[columnToken]}
	return r
}

// rows reads a table as databases write it: CSV with commas or semicolons, or with tabs, as mysql --batch does.
type rows struct {
	csv   *csv.Reader
	names []string
	row   map[string]string
}

// readRows reads the line of names. What a table of devices must have is there, or it is an error.
func readRows(r io.Reader) (*rows, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	head, err := buffered.Peek(4096)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err //nolint:wrapcheck // the caller names the file
	}
	if bytes.HasPrefix(head, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3)
		head = head[3:]
	}
	line, _, _ := bytes.Cut(head, []byte{'\n'})
	t := &rows{csv: csv.NewReader(buffered), row: map[string]string{}}
	t.csv.Comma = separator(line)
	t.csv.LazyQuotes, t.csv.ReuseRecord, t.csv.FieldsPerRecord = true, true, -1
	names, err := t.csv.Read()
	if err != nil {
		return nil, fmt.Errorf("no line of column names: %w", err)
	}
	for _, name := range names {
		t.names = append(t.names, strings.ToLower(strings.TrimSpace(name)))
	}
	for _, need := range []string{columnMobileApp, columnPlatform, columnToken} {
		if !slices.Contains(t.names, need) {
			return nil, fmt.Errorf("no column %q in the first line: want the table user_devices with its column names", need)
		}
	}
	return t, nil
}

// separator is what stands most often in the line of names.
func separator(line []byte) rune {
	best, most := ',', 0
	for _, c := range ",;\t" {
		if n := bytes.Count(line, []byte(string(c))); n > most {
			best, most = c, n
		}
	}
	return best
}

// next returns the next row by column, until the next call; errMalformed for one that has not as many fields as there are columns.
func (t *rows) next() (map[string]string, error) {
	fields, err := t.csv.Read()
	var broken *csv.ParseError
	switch {
	case errors.As(err, &broken):
		return nil, errMalformed
	case err != nil:
		return nil, err //nolint:wrapcheck // io.EOF, or the reader's
	case len(fields) != len(t.names):
		return nil, errMalformed
	}
	for i, name := range t.names {
		v := fields[i]
		if v == "NULL" || v == `\N` { // as databases write it
			v = ""
		}
		t.row[name] = v
	}
	return t.row, nil
}
