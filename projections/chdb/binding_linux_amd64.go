//go:build !static

package chdb

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// binding holds libchdb's functions. Pointers that C owns are kept as unsafe.Pointer and never looked into from Go, but for the
// bytes of a result. The names and signatures are those of chdb.h, version 26.7.
type binding struct {
	version     func() string
	connect     func(argc int32, argv unsafe.Pointer) unsafe.Pointer // chdb_connection*: a pointer to the handle
	closeConn   func(conn unsafe.Pointer)
	query       func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	stream      func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	fetch       func(conn, result unsafe.Pointer) unsafe.Pointer
	cancelQuery func(conn, result unsafe.Pointer)
	destroy     func(result unsafe.Pointer)
	buffer      func(result unsafe.Pointer) unsafe.Pointer
	length      func(result unsafe.Pointer) uintptr
	failure     func(result unsafe.Pointer) string
	rowsWritten func(result unsafe.Pointer) uint64

	insert        func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	appendRows    func(stream, data unsafe.Pointer, n uintptr) int32
	insertDone    func(stream unsafe.Pointer) unsafe.Pointer
	cancelInsert  func(stream unsafe.Pointer)
	insertFailure func(stream unsafe.Pointer) string
	destroyInsert func(stream unsafe.Pointer)

	enableSignals func(int32)
	shutdown      func() int32
	signals       signals
}

// loaded is the one library of this process: dlopen gives the same handle again, and the engine behind it is global.
//
//nolint:gochecknoglobals // libchdb's engine is a global of the process, and so is what guards it.
var loaded struct {
	sync.Mutex
	path string
	lib  *binding
}

// load opens the library at path once in this process. Go's signal handlers stand afterwards as they stood before.
func load(path string) (*binding, error) {
	loaded.Lock()
	defer loaded.Unlock()
	if loaded.lib != nil {
		if loaded.path != path {
			return nil, fmt.Errorf("load %s: this process has loaded %s already", path, loaded.path)
		}
		return loaded.lib, nil
	}
	sig, err := loadSignals()
	if err != nil {
		return nil, err
	}
	before := sig.save()
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load libchdb: %w", err)
	}
	b := &binding{signals: sig}
	for _, f := range []struct {
		name string
		into any
	}{
		{"chdb_version", &b.version},
		{"chdb_connect", &b.connect},
		{"chdb_close_conn", &b.closeConn},
		{"chdb_query_n", &b.query},
		{"chdb_stream_query_n", &b.stream},
		{"chdb_stream_fetch_result", &b.fetch},
		{"chdb_stream_cancel_query", &b.cancelQuery},
		{"chdb_destroy_query_result", &b.destroy},
		{"chdb_result_buffer", &b.buffer},
		{"chdb_result_length", &b.length},
		{"chdb_result_error", &b.failure},
		{"chdb_result_rows_written", &b.rowsWritten},
		{"chdb_stream_insert_n", &b.insert},
		{"chdb_stream_append", &b.appendRows},
		{"chdb_stream_done", &b.insertDone},
		{"chdb_stream_cancel_insert", &b.cancelInsert},
		{"chdb_stream_insert_error", &b.insertFailure},
		{"chdb_destroy_insert_stream", &b.destroyInsert},
		{"chdb_set_signal_handlers_enabled", &b.enableSignals},
		{"chdb_shutdown", &b.shutdown},
	} {
		symbol, err := purego.Dlsym(lib, f.name)
		if err != nil {
			return nil, fmt.Errorf("libchdb at %s is not the version this build knows (26.7): %w", path, err)
		}
		purego.RegisterFunc(f.into, symbol)
	}
	// The call itself sets handlers back to the system's defaults, Go's too.
	b.enableSignals(0)
	sig.restore(before)
	loaded.path, loaded.lib = path, b
	return b, nil
}

// text is a string's bytes and length for C. The caller keeps the string alive.
func text(s string) (unsafe.Pointer, uintptr) {
	return unsafe.Pointer(unsafe.StringData(s)), uintptr(len(s)) //nolint:gosec // C reads so many bytes during the call.
}

// take copies the bytes of a result or returns its error, and destroys it.
func (b *binding) take(result unsafe.Pointer) ([]byte, error) {
	if result == nil {
		return nil, errors.New("libchdb gave no result")
	}
	defer b.destroy(result)
	if message := b.failure(result); message != "" {
		return nil, engineError(message)
	}
	return append([]byte(nil), b.bytes(result)...), nil
}

// bytes are a result's, valid until it is destroyed.
func (b *binding) bytes(result unsafe.Pointer) []byte {
	n := b.length(result)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(b.buffer(result)), n) //nolint:gosec // C says how many bytes stand there.
}
