package chdb

import (
	"regexp"
	"strconv"
)

// engine opens connections to one directory of data. Its one implementation is libchdb; tests of the handler have their own.
type engine interface {
	connect() (session, error)
	version() string
	close()
}

// session is one connection: one statement at a time.
type session interface {
	// exec runs a statement and drops what it answers.
	exec(query string) error
	// query returns the whole answer in format.
	query(query, format string) ([]byte, error)
	// stream calls chunk with each piece of the answer, which is valid during the call. An error of chunk ends the query.
	stream(query, format string, chunk func([]byte) error) error
	// insert begins an insert whose rows follow in format. The query has no FORMAT clause.
	insert(query, format string) (insertion, error)
	close()
}

// insertion takes rows until done or cancel, one of which must be called, once.
type insertion interface {
	Write(p []byte) (int, error)
	// done inserts what was written and returns the number of rows.
	done() (rows uint64, err error)
	// cancel drops what was written.
	cancel()
}

// engineError is an exception of ClickHouse, in its own words: "Code: 60. DB::Exception: …".
type engineError string

func (e engineError) Error() string { return string(e) }

var exceptionCode = regexp.MustCompile(`^Code: (\d{1,6})\.`)

// unknownException is ClickHouse's code for an exception that has none (UNKNOWN_EXCEPTION).
const unknownException = 1002

// codeOf is the number in an exception's text, as ClickHouse's HTTP interface gives it in a header.
func codeOf(err error) int {
	if m := exceptionCode.FindStringSubmatch(err.Error()); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
			return n
		}
	}
	return unknownException
}
