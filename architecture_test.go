package campanile_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/campanile-push/campanile"

// rooms says what of ours each room imports besides schemas and vault, which everybody may. "*" is everything.
// A closet (a folder in a room) may also import its own room.
var rooms = map[string][]string{
	"schemas":     nil,
	"vault":       nil,
	"eventlog":    nil,
	"ingest":      nil,
	"router":      nil,
	"senders":     nil,
	"projections": nil,
	"api":         nil,
	"console":     nil,
	"audit":       nil,
	"migrate":     nil,
	"simulator":   nil,
	"bench":       {"*"}, // measures every stage beside its bare library
	"cmd":         {"*"}, // the roof
	"deployments": nil,
}

// closets says which sister closets a closet imports.
var closets = map[string][]string{
	"senders/apns": {"senders/h2"},
	"senders/fcm":  {"senders/h2"},

	"projections/chdbtest": {"projections/chdb"}, // starts the engine for tests
}

// vendors says where an SDK lives: the rooms or closets that may import it.
var vendors = map[string][]string{
	"github.com/twmb/franz-go":            {"eventlog", "bench"},
	"github.com/gin-gonic/gin":            {"ingest", "bench"},
	"github.com/sideshow/apns2":           {"senders/apns", "bench"},
	"github.com/appleboy/go-fcm":          {"senders/fcm", "bench"},
	"firebase.google.com/go":              {"senders/fcm", "bench"},
	"github.com/ClickHouse/clickhouse-go": {"projections/clickhouse"},
	"github.com/ClickHouse/ch-go":         {"projections/chdb"},
	"github.com/ebitengine/purego":        {"projections/chdb"},
	"github.com/jackc/pgx":                {"projections/cockroach"},
	"github.com/cockroachdb/cockroach-go": {"projections/cockroach"},
	"github.com/pressly/goose":            {"projections/cockroach"},
	"github.com/cockroachdb/pebble":       {"projections/pebble"},
	"github.com/spf13/cobra":              {"cmd"},
	"github.com/dchest/siphash":           {"vault"},
}

// TestRoomsImportOnlyWhatTheyMay reads the imports of every file in this process: what a child process reads, Go's test cache
// does not see.
func TestRoomsImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch name := d.Name(); {
			case path == ".":
				return nil
			case strings.HasPrefix(name, "."), path == "bin", path == "build", path == "data", name == "testdata", name == "node_modules":
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		for _, complaint := range checkFile(t, filepath.ToSlash(path), nil) {
			t.Error(complaint)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestTheRuleCatchesWhatItShould feeds the check with files that break it.
func TestTheRuleCatchesWhatItShould(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, imports string
		bad           bool
	}{
		{"router/x.go", module + "/schemas", false},
		{"router/x.go", module + "/vault", false},
		{"router/x.go", module + "/senders", true},
		{"router/x.go", "github.com/twmb/franz-go/pkg/kgo", true},
		{"senders/apns/x.go", module + "/senders", false},
		{"senders/apns/x.go", module + "/senders/h2", false},
		{"senders/apns/x.go", module + "/senders/fcm", true},
		{"senders/x.go", module + "/senders/apns", true},
		{"projections/pebble/x_test.go", module + "/projections/storetest", false},
		{"util/x.go", "strings", true},
		{"schemas/x.go", module + "/vault", true},
		{"cmd/campanile/x.go", module + "/router", false},
	} {
		src := "package x\n\nimport _ " + strconv.Quote(c.imports) + "\n"
		got := checkFile(t, c.path, src)
		if (len(got) > 0) != c.bad {
			t.Errorf("%s importing %s: want bad=%v, got %q", c.path, c.imports, c.bad, got)
		}
	}
}

func checkFile(t *testing.T, path string, src any) (complaints []string) {
	t.Helper()
	room, rest, inFolder := strings.Cut(path, "/")
	if !inFolder {
		return nil // the module's root holds only this test
	}
	allowed, known := rooms[room]
	if !known {
		return []string{path + ": the folder " + room + " is not in the house: say in architecture_test.go what it may import"}
	}
	closet := room
	if name, _, ok := strings.Cut(rest, "/"); ok {
		closet = room + "/" + name
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
	if err != nil {
		return []string{path + ": " + err.Error()}
	}
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return append(complaints, path+": "+err.Error())
		}
		if ours, ok := strings.CutPrefix(name, module+"/"); ok && !mayImport(room, closet, ours, allowed, strings.HasSuffix(path, "_test.go")) {
			complaints = append(complaints, path+" imports "+name+", which the rule of docs/architecture.md forbids")
		}
		for vendor, homes := range vendors {
			if (name == vendor || strings.HasPrefix(name, vendor+"/")) && !isHome(homes, room, closet) {
				complaints = append(complaints, path+" imports "+name+", which lives in "+strings.Join(homes, ", "))
			}
		}
	}
	return complaints
}

func isHome(homes []string, room, closet string) bool {
	return slices.Contains(homes, room) || slices.Contains(homes, closet)
}

func mayImport(room, closet, ours string, allowed []string, test bool) bool {
	target, rest, _ := strings.Cut(ours, "/")
	if target == "schemas" || target == "vault" && room != "schemas" {
		return true
	}
	for _, a := range allowed {
		if a == "*" || a == target {
			return true
		}
	}
	if target != room {
		return false
	}
	if closet == room { // the room itself: its closets are for cmd to choose, but a test may use the conformance suites
		return rest == "" || test
	}
	sister := room
	if name, _, _ := strings.Cut(rest, "/"); name != "" {
		sister = room + "/" + name
	}
	if rest == "" || sister == closet {
		return true
	}
	return slices.Contains(closets[closet], sister) || test && strings.HasSuffix(sister, "test") // conformance suites
}
