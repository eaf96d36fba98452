package clickhouse

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// migrations are files <version>_<name>.sql. Every statement can be run again: two processes may start at once, and one may die
// in the middle. A file is never changed once released.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migration is one file's statements.
type migration struct {
	version    uint32
	name       string
	statements []string
}

// allMigrations reads the files in the order of their versions.
func allMigrations() ([]migration, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	all := make([]migration, 0, len(files)) // Glob sorts
	for _, file := range files {
		text, err := fs.ReadFile(migrations, file)
		if err != nil {
			return nil, fmt.Errorf("read the migrations: %w", err)
		}
		name := strings.TrimSuffix(strings.TrimPrefix(file, "migrations/"), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("migration %s: its name begins with no number", file)
		}
		all = append(all, migration{uint32(version), name, splitStatements(string(text))})
	}
	return all, nil
}

// splitStatements cuts where a line ends in a semicolon.
func splitStatements(text string) (statements []string) {
	for s := range strings.SplitSeq(text, ";\n") {
		if s = strings.TrimSpace(s); s != "" {
			statements = append(statements, s)
		}
	}
	return statements
}

// migrate brings the database to this version. A database of a newer Campanile is refused: its tables may mean something else.
func (a *Analytics) migrate(ctx context.Context) error {
	all, err := allMigrations()
	if err != nil {
		return err
	}
	err = a.exec(ctx, "create the table of migrations", `CREATE TABLE IF NOT EXISTS migrations (
		version UInt32, name String, applied_at DateTime('UTC') DEFAULT now()
	) ENGINE = ReplacingMergeTree ORDER BY version`)
	if err != nil {
		return err
	}
	var have uint32
	err = a.each(ctx, "read the migrations", func(r row) error { return r.Scan(&have) }, "SELECT max(version) FROM migrations")
	if err != nil {
		return err
	}
	if newest := all[len(all)-1].version; have > newest {
		return fmt.Errorf("the analytics database has version %d, and this Campanile knows %d: start a newer one", have, newest)
	}
	for _, m := range all {
		if m.version <= have {
			continue
		}
		for _, s := range m.statements {
			if err := a.exec(ctx, "migration "+m.name, s); err != nil {
				return err
			}
		}
		if err := a.exec(ctx, "migration "+m.name, "INSERT INTO migrations (version, name) VALUES (?, ?)", m.version, m.name); err != nil {
			return err
		}
		a.log.Info("analytics tables are migrated", "migration", m.name)
	}
	return nil
}
