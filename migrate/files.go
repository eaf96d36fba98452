package migrate

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Collection is what an exported file holds.
type Collection string

// The collections of AirNotifier that are imported.
const (
	Applications Collection = "applications"
	Keys         Collection = "keys"
	Tokens       Collection = "tokens"
)

// File is one file of an export.
type File struct {
	Path       string
	Collection Collection
	// Database is the name of the database as the path has it: <prefix><app>. Empty where the path says none.
	Database string
	// App is the app, where somebody named it. It stands over Database.
	App string
}

// leftOut says of AirNotifier's other collections why they are not imported.
func leftOut(collection string) (why string, known bool) {
	switch {
	case collection == "managers":
		return "managers: Campanile has accounts of its own, and takes no passwords over", true
	case collection == "logs":
		return "logs: they hold message texts and access keys", true
	case collection == "users":
		return "users: they hold passwords in clear", true
	case collection == "options":
		return "options of AirNotifier's database", true
	case collection == "objects", strings.HasPrefix(collection, "obj_"):
		return "objects: Campanile keeps devices and sends pushes, and nothing else", true
	}
	return "", false
}

// Find lists the files of an export in dirs and files, in a fixed order. What is no collection of AirNotifier's is counted in
// skipped by the reason.
//
// mongoexport names nothing, so a file is known by its name or its folder's: applications.json, app_demo/tokens.json,
// app_demo.tokens.json.gz, airnotifier.applications.json.
func Find(paths ...string) (files []File, skipped map[string]int, err error) {
	skipped = map[string]int{}
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
				return filepath.SkipDir
			case d.IsDir():
				return nil
			}
			f, why := recognise(path)
			if why != "" {
				skipped[why]++
				return nil
			}
			files = append(files, f)
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("look for exports: %w", err)
		}
	}
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return slices.Compact(files), skipped, nil
}

// recognise reads a path; why says why it is none of ours.
func recognise(path string) (f File, why string) {
	stem := strings.TrimSuffix(filepath.Base(path), ".gz")
	ext := filepath.Ext(stem)
	switch ext {
	case ".bson":
		return File{}, "BSON of mongodump: export with mongoexport, or turn it into JSON with bsondump"
	case ".json", ".jsonl", ".ndjson":
	default:
		return File{}, "not the name of an export, such as app_demo.tokens.json"
	}
	stem = strings.TrimSuffix(stem, ext)
	database, collection := "", stem
	if c, _ := knownCollection(stem); !c {
		if i := strings.LastIndexAny(stem, ".-_"); i > 0 {
			database, collection = stem[:i], stem[i+1:]
		}
	} else if parent := filepath.Base(filepath.Dir(path)); parent != "." && parent != string(filepath.Separator) {
		database = parent
	}
	ours, why := knownCollection(collection)
	switch {
	case !ours:
		return File{}, "not the name of an export, such as app_demo.tokens.json"
	case why != "":
		return File{}, why
	}
	return File{Path: path, Collection: Collection(collection), Database: database}, ""
}

func knownCollection(name string) (known bool, why string) {
	switch Collection(name) {
	case Applications, Keys, Tokens:
		return true, ""
	}
	why, known = leftOut(name)
	return known, why
}

// reading is an open export.
type reading struct {
	io.Reader
	file  *os.File
	bytes *int64 // of the file, so far
}

// openExport opens a file and unpacks it if it is gzip, whatever its name says. read counts the bytes of the file.
func openExport(path string, read *int64) (*reading, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the file
	}
	r := &reading{file: file, bytes: read}
	buffered := bufio.NewReaderSize(counted{file, read}, 64<<10)
	r.Reader = buffered
	if magic, err := buffered.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		unpacked, err := gzip.NewReader(buffered)
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		r.Reader = unpacked
	}
	return r, nil
}

func (r *reading) Close() error { return r.file.Close() }

type counted struct {
	r io.Reader
	n *int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	*c.n += int64(n)
	return n, err
}

// sizes is the sum of the files' bytes.
func sizes(paths []string) (total int64) {
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil {
			total += info.Size()
		}
	}
	return total
}

// eachDocument calls f with every document of a file. malformed counts what is none. A file without a single document is no export.
func eachDocument(path string, read *int64, f func(doc []byte) error) (malformed int64, err error) {
	r, err := openExport(path, read)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	docs, good := newDocuments(r), 0
	for {
		doc, err := docs.next()
		switch {
		case errors.Is(err, io.EOF) && good == 0 && malformed > 0:
			return malformed, fmt.Errorf("%s: no document in it: want what mongoexport writes, in JSON", path)
		case errors.Is(err, io.EOF):
			return malformed, nil
		case errors.Is(err, errMalformed):
			malformed++
			continue
		case err != nil:
			return malformed, fmt.Errorf("%s: %w", path, err)
		}
		good++
		if err := f(doc); err != nil {
			return malformed, err
		}
	}
}
