package broker

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A segment of kfake is a file of record batches as Kafka's protocol has them (<first offset>.dat) and an index beside it
// (.idx) with 15 bytes for each: version, checksum, leader epoch, greatest earlier timestamp, flags. The golden test of this
// package holds kfake to it.

const (
	batchHeader  = 61 // bytes before the records of a batch
	lengthEnd    = 12 // the length counts what follows it
	indexEntry   = 15
	indexVersion = 1
	inTxFlag     = 1
	maxBatch     = 1 << 30 // as kfake reads
)

// Attributes of a batch.
const (
	transactional = 0x10
	control       = 0x20
)

// checksum is that of Kafka's batches and of kfake's own files.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// errTorn is the end of what can be read of a segment: the rest was being written when the process died.
var errTorn = errors.New("torn batch")

// batch is what the header of a record batch says.
type batch struct {
	first, last int64 // offsets
	leaderEpoch int32
	attributes  int16
	maxTime     int64
	producer    int64
	epoch       int16
	size        int  // bytes, all of it
	commit      bool // of a control batch: commits
}

// batchSize reads the size of the batch at the start of raw, of which the first 12 bytes are enough.
func batchSize(raw []byte) (int, error) {
	if len(raw) < lengthEnd {
		return 0, errTorn
	}
	n := int64(int32(binary.BigEndian.Uint32(raw[8:])))
	if n < batchHeader-lengthEnd || n > maxBatch {
		return 0, errTorn
	}
	return lengthEnd + int(n), nil
}

// readBatch reads the batch that raw holds exactly.
func readBatch(raw []byte) (batch, error) {
	if len(raw) < batchHeader || binary.BigEndian.Uint32(raw[17:]) != checksum(raw[21:]) {
		return batch{}, errTorn
	}
	first := int64(binary.BigEndian.Uint64(raw))
	b := batch{
		first:       first,
		last:        first + int64(int32(binary.BigEndian.Uint32(raw[23:]))),
		leaderEpoch: int32(binary.BigEndian.Uint32(raw[12:])),
		attributes:  int16(binary.BigEndian.Uint16(raw[21:])),
		maxTime:     int64(binary.BigEndian.Uint64(raw[35:])),
		producer:    int64(binary.BigEndian.Uint64(raw[43:])),
		epoch:       int16(binary.BigEndian.Uint16(raw[51:])),
		size:        len(raw),
	}
	if b.attributes&control != 0 {
		b.commit = commits(raw[batchHeader:])
	}
	return b, nil
}

// commits reports whether a control batch's record commits; what cannot be read aborts, as in kfake.
func commits(records []byte) bool {
	var rec kmsg.Record
	if err := rec.ReadFrom(records); err != nil || len(rec.Key) < 4 {
		return false
	}
	return binary.BigEndian.Uint16(rec.Key[2:]) == uint16(kmsg.ControlRecordKeyTypeCommit)
}

// indexOf is the entry of the index for b.
func indexOf(b batch, inTx bool) []byte {
	e := make([]byte, indexEntry)
	e[0] = indexVersion
	binary.LittleEndian.PutUint32(e[2:], uint32(b.leaderEpoch))
	binary.LittleEndian.PutUint64(e[6:], uint64(b.maxTime))
	if inTx {
		e[14] = inTxFlag
	}
	e[1] = byte(checksum(e[2:]))
	return e
}

// indexOK reports whether an entry is whole.
func indexOK(e []byte) bool {
	return len(e) == indexEntry && e[0] == indexVersion && byte(checksum(e[2:])) == e[1]
}

// marker is the control batch that ends a producer's transaction.
func marker(offset int64, leaderEpoch int32, producer int64, epoch int16, commit bool, now time.Time) []byte {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	if commit {
		key.Type = kmsg.ControlRecordKeyTypeCommit
	}
	end := kmsg.EndTxnMarker{}
	rec := kmsg.Record{Key: key.AppendTo(nil), Value: end.AppendTo(nil)}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1)
	b := kmsg.RecordBatch{
		FirstOffset:          offset,
		PartitionLeaderEpoch: leaderEpoch,
		Magic:                2,
		Attributes:           transactional | control,
		FirstTimestamp:       now.UnixMilli(),
		MaxTimestamp:         now.UnixMilli(),
		ProducerID:           producer,
		ProducerEpoch:        epoch,
		FirstSequence:        -1,
		NumRecords:           1,
		Records:              rec.AppendTo(nil),
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-lengthEnd))
	binary.BigEndian.PutUint32(raw[17:], checksum(raw[21:]))
	return raw
}
