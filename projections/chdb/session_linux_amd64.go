//go:build !static

package chdb

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"unsafe"
)

// library is the engine of libchdb on one directory.
type library struct {
	lib  *binding
	args []string
	// connecting is held during chdb_connect, whose signals are saved and restored around it.
	connecting sync.Mutex
}

// openEngine loads the library at path on the data in dir. maxMemory bounds the engine as a whole, in bytes; 0 is its
// default, nine tenths of the machine.
func openEngine(path, dir string, maxMemory int64) (engine, error) {
	lib, err := load(path)
	if err != nil {
		return nil, err
	}
	args := []string{"clickhouse", "--path=" + dir}
	if maxMemory > 0 {
		args = append(args, "--max_server_memory_usage="+strconv.FormatInt(maxMemory, 10))
	}
	return &library{lib: lib, args: args}, nil
}

func (l *library) version() string { return l.lib.version() }

// close ends the engine once its sessions are closed. chdb_shutdown refuses after some kinds of queries, and the process ends
// cleanly all the same: best effort.
func (l *library) close() { l.lib.shutdown() }

func (l *library) connect() (session, error) {
	l.connecting.Lock()
	defer l.connecting.Unlock()
	var pins runtime.Pinner
	defer pins.Unpin()
	argv := make([]*byte, len(l.args)+1) // the last is nil
	for i, arg := range l.args {
		b := append([]byte(arg), 0)
		argv[i] = &b[0]
		pins.Pin(argv[i])
	}
	pins.Pin(&argv[0])
	before := l.lib.signals.save()
	conn := l.lib.connect(int32(len(l.args)), unsafe.Pointer(&argv[0])) //nolint:gosec // a handful of arguments
	l.lib.signals.restore(before)
	if conn == nil || *(*unsafe.Pointer)(conn) == nil {
		return nil, errors.New("libchdb refuses the directory: its log stands on standard error")
	}
	return &libSession{lib: l.lib, conn: conn}, nil
}

type libSession struct {
	lib  *binding
	conn unsafe.Pointer
}

func (s *libSession) handle() unsafe.Pointer { return *(*unsafe.Pointer)(s.conn) }

func (s *libSession) close() { s.lib.closeConn(s.conn) }

func (s *libSession) exec(query string) error {
	_, err := s.query(query, "Null")
	return err
}

func (s *libSession) query(query, format string) ([]byte, error) {
	q, qn := text(query)
	f, fn := text(format)
	result := s.lib.query(s.handle(), q, qn, f, fn)
	runtime.KeepAlive(query)
	runtime.KeepAlive(format)
	return s.lib.take(result)
}

func (s *libSession) stream(query, format string, chunk func([]byte) error) error {
	q, qn := text(query)
	f, fn := text(format)
	result := s.lib.stream(s.handle(), q, qn, f, fn)
	runtime.KeepAlive(query)
	runtime.KeepAlive(format)
	if result == nil {
		return errors.New("libchdb gave no stream")
	}
	defer s.lib.destroy(result)
	if message := s.lib.failure(result); message != "" {
		return engineError(message)
	}
	for {
		more, err := s.next(result, chunk)
		if err != nil {
			s.lib.cancelQuery(s.handle(), result)
			return err
		}
		if !more {
			return nil
		}
	}
}

// next fetches one piece of a stream; more is false after the last.
func (s *libSession) next(result unsafe.Pointer, chunk func([]byte) error) (more bool, err error) {
	piece := s.lib.fetch(s.handle(), result)
	if piece == nil {
		return false, nil
	}
	defer s.lib.destroy(piece)
	if message := s.lib.failure(piece); message != "" {
		return false, engineError(message)
	}
	b := s.lib.bytes(piece)
	if len(b) == 0 {
		return false, nil
	}
	return true, chunk(b)
}

func (s *libSession) insert(query, format string) (insertion, error) {
	q, qn := text(query)
	f, fn := text(format)
	stream := s.lib.insert(s.handle(), q, qn, f, fn)
	runtime.KeepAlive(query)
	runtime.KeepAlive(format)
	if stream == nil {
		return nil, errors.New("libchdb gave no insert")
	}
	if message := s.lib.insertFailure(stream); message != "" {
		s.lib.destroyInsert(stream)
		return nil, engineError(message)
	}
	return &libInsert{lib: s.lib, stream: stream}, nil
}

type libInsert struct {
	lib    *binding
	stream unsafe.Pointer
}

func (i *libInsert) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	rc := i.lib.appendRows(i.stream, unsafe.Pointer(&p[0]), uintptr(len(p))) //nolint:gosec // C reads so many bytes during the call.
	runtime.KeepAlive(p)
	if rc != 0 {
		if message := i.lib.insertFailure(i.stream); message != "" {
			return 0, engineError(message)
		}
		return 0, fmt.Errorf("libchdb refuses rows: %d", rc)
	}
	return len(p), nil
}

func (i *libInsert) done() (uint64, error) {
	result := i.lib.insertDone(i.stream)
	defer i.lib.destroyInsert(i.stream)
	if result == nil {
		return 0, errors.New("libchdb gave no result of the insert")
	}
	rows := i.lib.rowsWritten(result)
	_, err := i.lib.take(result)
	return rows, err
}

func (i *libInsert) cancel() {
	i.lib.cancelInsert(i.stream)
	i.lib.destroyInsert(i.stream)
}
