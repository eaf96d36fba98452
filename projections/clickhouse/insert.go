package clickhouse

import (
	"context"
	"strings"

	driver "github.com/ClickHouse/clickhouse-go/v2"
)

// column is one of an insert: its name, the type it travels as, and a slice of that type's values.
type column struct {
	name, kind string
	values     any
}

func (d *deliveryRows) len() int { return len(d.off) }

// columns travel as plain strings where the table has LowCardinality: the engine converts them faster than the driver builds
// dictionaries.
func (d *deliveryRows) columns() []column {
	return []column{
		{"app", "String", d.app},
		{"transport", "String", d.transport},
		{"at", "DateTime64(6, 'UTC')", d.at},
		{"part", "UInt16", d.part},
		{"off", "Int64", d.off},
		{"kind", "Int8", d.kind},
		{"lane", "String", d.lane},
		{"tier", "UInt8", d.tier},
		{"source_off", "Int64", d.sourceOff},
		{"generation", "Int64", d.generation},
		{"repeat", "Bool", d.repeat},
		{"first", "Bool", d.first},
		{"outcome", "String", d.outcome},
		{"reason", "String", d.reason},
		{"attempt", "UInt16", d.attempt},
		{"requested_at", "DateTime64(6, 'UTC')", d.requestedAt},
		{"latency_us", "Int64", d.latencyUS},
		{"token", "UInt64", d.token},
		{"send", "UUID", d.send},
		{"broadcast", "UUID", d.broadcast},
		{"request", "UUID", d.request},
	}
}

func (d *deviceRows) len() int { return len(d.off) }

func (d *deviceRows) columns() []column {
	return []column{
		{"app", "String", d.app},
		{"event", "String", d.event},
		{"at", "DateTime64(6, 'UTC')", d.at},
		{"part", "UInt16", d.part},
		{"off", "Int64", d.off},
		{"transport", "String", d.transport},
		{"environment", "String", d.environment},
		{"token", "UInt64", d.token},
		{"user", "UInt64", d.userHash},
		{"channel", "String", d.channel},
		{"key_id", "String", d.keyID},
		{"platform", "String", d.platform},
		{"app_version", "String", d.appVersion},
		{"locale", "String", d.locale},
		{"time_zone", "String", d.timeZone},
		{"reason", "String", d.reason},
		{"as_of", "DateTime64(6, 'UTC')", d.asOf},
		{"send", "UUID", d.send},
	}
}

// insert writes columns to a table in one block. An error may leave some of the rows there.
func (a *Analytics) insert(ctx context.Context, table string, columns []column) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	names := make([]string, len(columns))
	kinds := make([]driver.ColumnNameAndType, len(columns))
	for i, c := range columns {
		names[i] = c.name
		kinds[i] = driver.ColumnNameAndType{Name: c.name, Type: c.kind}
	}
	// The types spare the driver a DESCRIBE for each insert over HTTP.
	ctx = driver.Context(ctx, driver.WithColumnNamesAndTypes(kinds))
	batch, err := a.conn.PrepareBatch(ctx, "INSERT INTO "+table+" ("+strings.Join(names, ", ")+")")
	if err != nil {
		return failed(err, "insert into %s", table)
	}
	defer batch.Close() // gives the connection back where Send was not reached
	for i, c := range columns {
		if err := batch.Column(i).Append(c.values); err != nil {
			return failed(err, "insert into %s, column %s", table, c.name)
		}
	}
	return failed(batch.Send(), "insert into %s", table)
}
