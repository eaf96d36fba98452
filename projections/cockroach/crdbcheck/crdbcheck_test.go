package crdbcheck

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/cockroachdb-parser/pkg/sql/parser"
	"github.com/cockroachdb/cockroachdb-parser/pkg/sql/sem/tree"
)

// functions that both databases have, with the same meaning. The grammar knows no names: without this list a call of
// pg_advisory_lock would pass.
var functions = []string{"count", "current_schema", "max", "now", "unnest", "version"}

// complaints are what CockroachDB would refuse in sql, and what this project's subset does without.
func complaints(sql string) []string {
	stmts, err := parser.Parse(sql)
	if err != nil {
		return []string{err.Error()}
	}
	if len(stmts) == 0 {
		return []string{"no statement"}
	}
	var found []string
	for _, stmt := range stmts {
		for _, name := range calls(stmt.AST) {
			if !slices.Contains(functions, name) {
				found = append(found, "calls "+name+", which is not known to be the same on both databases")
			}
		}
	}
	return found
}

// calls are the functions that a statement calls. It walks the values of the tree by reflection: the tree's own visitor does
// not go into every clause.
func calls(stmt tree.Statement) (names []string) {
	seen := map[uintptr]bool{}
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if v.IsNil() || seen[v.Pointer()] {
				return
			}
			seen[v.Pointer()] = true
			if v.CanInterface() {
				if call, ok := v.Interface().(*tree.FuncExpr); ok {
					names = append(names, strings.ToLower(call.Func.String()))
				}
			}
			walk(v.Elem())
		case reflect.Interface:
			walk(v.Elem())
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		default: // nothing below
		}
	}
	walk(reflect.ValueOf(&stmt).Elem())
	return names
}

func TestEveryStatementIsCockroach(t *testing.T) {
	t.Parallel()
	catalogue := catalogue(t)
	if len(catalogue) < 35 {
		t.Fatalf("the catalogue has %d statements: is it still in %q?", len(catalogue), catalogueFiles)
	}
	for _, name := range slices.Sorted(maps.Keys(catalogue)) {
		for _, complaint := range complaints(catalogue[name]) {
			t.Errorf("%s: %s", name, complaint)
		}
	}
}

func TestEveryMigrationIsCockroach(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	for _, file := range append(files, "testdata/goose.sql") {
		sql, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, complaint := range complaints(string(sql)) {
			t.Errorf("%s: %s", file, complaint)
		}
	}
}

var looksLikeSQL = regexp.MustCompile(`^\s*(SELECT|INSERT|UPSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|TRUNCATE|SET|BEGIN|LOCK|COPY|LISTEN|NOTIFY|VACUUM)\s`)

// TestNoStatementHidesOutsideTheCatalogue keeps this check complete.
func TestNoStatementHidesOutsideTheCatalogue(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, file := range files {
		base := filepath.Base(file)
		if slices.Contains(catalogueFiles, base) || base == postgresFile || strings.HasSuffix(base, "_test.go") {
			continue
		}
		seen++
		parsed, err := goparser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && looksLikeSQL.MatchString(s) {
					t.Errorf("%s: a statement outside sql.go: %s", file, s)
				}
			}
			return true
		})
	}
	if seen == 0 {
		t.Error("no files were read")
	}
}

// catalogueFiles hold every statement; those of sqlepoch.go and sql.go are also executed with the names of an epoch's tables.
var catalogueFiles = []string{"sql.go", "sqlepoch.go"}

// postgresFile holds what only PostgreSQL is told. Each of its statements must be one that CockroachDB's grammar refuses: the others belong
// into the catalogue.
const postgresFile = "sqlpostgres.go"

func TestWhatOnlyPostgreSQLIsToldIsNoCockroach(t *testing.T) {
	t.Parallel()
	file, err := goparser.ParseFile(token.NewFileSet(), "../"+postgresFile, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	statements := map[string]string{}
	constants(t, file, statements)
	if len(statements) == 0 {
		t.Fatal("there are none")
	}
	for name, sql := range statements {
		if len(complaints(sql)) == 0 {
			t.Errorf("%s can be parsed: move it to the catalogue", name)
		}
	}
}

// catalogue is every constant of the catalogue's files, by name.
func catalogue(t *testing.T) map[string]string {
	t.Helper()
	statements := map[string]string{}
	for _, name := range catalogueFiles {
		file, err := goparser.ParseFile(token.NewFileSet(), "../"+name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		constants(t, file, statements)
	}
	return statements
}

func constants(t *testing.T, file *ast.File, statements map[string]string) {
	t.Helper()
	var err error
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			if i >= len(spec.Values) {
				continue // a variable
			}
			lit, ok := spec.Values[i].(*ast.BasicLit)
			if !strings.HasPrefix(name.Name, "sql") {
				continue
			}
			if !ok || lit.Kind != token.STRING {
				t.Fatalf("%s is no plain string", name)
			}
			if statements[name.Name], err = strconv.Unquote(lit.Value); err != nil {
				t.Fatal(err)
			}
		}
		return true
	})
}

// TestTheCheckCatchesWhatItShould feeds it with what only PostgreSQL knows.
func TestTheCheckCatchesWhatItShould(t *testing.T) {
	t.Parallel()
	for _, sql := range []string{
		"", "LISTEN devices", "VACUUM devices", "LOCK TABLE devices", "SELECT pg_advisory_lock(1)",
		"MERGE INTO devices USING audience ON true WHEN MATCHED THEN DELETE",
		"SELECT n FROM generate_series(1, 10) AS s(n)",
		"INSERT INTO applied (part, next) SELECT p, 0 FROM unnest($1::INT8[]) AS i(p) WHERE pg_try_advisory_lock(p)",
		"DELETE FROM applied WHERE part IN (SELECT jsonb_array_length(x) FROM y)",
		"UPDATE applied SET next = txid_current()",
	} {
		if len(complaints(sql)) == 0 {
			t.Errorf("passes: %s", sql)
		}
	}
}
