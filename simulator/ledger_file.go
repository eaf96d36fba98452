package simulator

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// Entry is one accepted push.
type Entry struct {
	TimeUS     int64 // Unix microseconds
	Service    Provider
	Sandbox    bool   // APNs' development environment
	App        string // APNs topic or FCM project
	Token      uint64 // TokenHash
	ID         [16]byte
	Body       uint64 // hash of the payload
	Unanswered bool   // accepted by intent without an answer: the connection was cut
}

// The file is a run of records of 48 bytes, little endian; the first holds magic and version.
//
//	0   CRC-32C of the other 44 bytes
//	4   app, index into the file of apps
//	6   service
//	7   flags: 1 unanswered
//	8   time, Unix microseconds
//	16  token hash
//	24  id, 16 bytes
//	40  body hash
const (
	recordSize     = 48
	ledgerMagic    = "campanile ledger 1\n"
	flagUnanswered = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a table

// appName is a line of the file of apps: apps have no bounded length, so records hold their number.
type appName struct {
	Service service `json:"service"`
	Name    string  `json:"name"`
}

// record is an entry in the file's terms.
type record struct {
	app        uint16
	service    service
	unanswered bool
	timeUS     int64
	token      uint64
	id         [16]byte
	body       uint64
}

func (r *record) append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, r.app)
	flags := byte(0)
	if r.unanswered {
		flags = flagUnanswered
	}
	b = append(b, byte(r.service), flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.timeUS))
	b = binary.LittleEndian.AppendUint64(b, r.token)
	b = append(b, r.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, r.body)
	binary.LittleEndian.PutUint32(b[start:], crc32.Checksum(b[start+4:], castagnoli))
	return b
}

// parseRecord reads the 48 bytes at the start of b; false for what append never wrote.
func parseRecord(b []byte) (r record, ok bool) {
	if len(b) < recordSize || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:recordSize], castagnoli) {
		return r, false
	}
	r.app = binary.LittleEndian.Uint16(b[4:])
	r.service = service(b[6])
	r.unanswered = b[7]&flagUnanswered != 0
	r.timeUS = int64(binary.LittleEndian.Uint64(b[8:]))
	r.token = binary.LittleEndian.Uint64(b[16:])
	copy(r.id[:], b[24:40])
	r.body = binary.LittleEndian.Uint64(b[40:])
	return r, r.service >= serviceAPNS && r.service <= serviceFCM
}

func ledgerHeader() []byte {
	b := make([]byte, recordSize)
	copy(b, ledgerMagic)
	return b
}

// errNotALedger keeps us from truncating somebody else's file.
var errNotALedger = errors.New("this file is no ledger of the simulator, or one of another version: move it away")

// readRecords calls each with every whole record of a ledger, and returns the size of the file up to the last of them and the
// number of damaged records before it. What stands behind is a torn tail: the writer died in the middle.
func readRecords(f io.ReadSeeker, each func(r *record)) (size int64, damaged int, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	in := bufio.NewReaderSize(f, 1<<20)
	var b [recordSize]byte
	n, err := io.ReadFull(in, b[:])
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return 0, 0, nil
	case n < recordSize && string(b[:n]) == string(ledgerHeader()[:n]):
		return 0, 0, nil // torn in its first write
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return 0, 0, err
	case string(b[:]) != string(ledgerHeader()):
		return 0, 0, errNotALedger
	}
	size = recordSize
	at, bad := size, 0
	for {
		_, err := io.ReadFull(in, b[:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return size, damaged, nil
		}
		if err != nil {
			return 0, 0, err
		}
		at += recordSize
		r, ok := parseRecord(b[:])
		if !ok {
			bad++
			continue
		}
		each(&r)
		size, damaged, bad = at, damaged+bad, 0
	}
}

// readApps reads the whole lines of the file of apps, and returns the size up to the last of them.
func readApps(f io.ReadSeeker) (apps []appName, size int64, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return apps, size, nil
		}
		if err != nil {
			return nil, 0, err
		}
		var a appName
		if err := json.Unmarshal(line, &a); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", len(apps)+1, err)
		}
		apps, size = append(apps, a), size+int64(len(line))
	}
}

// appendFile is a file that is only ever written whole pieces at its end.
type appendFile struct {
	f    *os.File
	size int64
}

// write appends b. A piece that fits only in part, on a full disk, is taken back.
func (a *appendFile) write(b []byte) error {
	if _, err := a.f.WriteAt(b, a.size); err != nil {
		_ = a.f.Truncate(a.size)
		return err
	}
	a.size += int64(len(b))
	return nil
}

func (a *appendFile) truncate(size int64) error {
	a.size = size
	return a.f.Truncate(size)
}
