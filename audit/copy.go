package audit

import (
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// CopiedTopics are what a log with another number of partitions needs of an older one in which nothing is on its way: all else is
// about what was in flight, or can be built again.
func CopiedTopics() []schemas.Topic { return []schemas.Topic{schemas.Apps, schemas.Devices} }

// Copy says a record of CopiedTopics again, into the partition that out's layout gives it. What belongs to one device, or one app,
// stays in its order if it is copied in its order. Anything else than what these topics hold is an error: a copy must not lose a fact.
func Copy(out *schemas.Out, r schemas.Record) error {
	event, err := r.Event()
	if err != nil {
		return err
	}
	switch e := event.(type) {
	case *pushv1.AppConfigured:
		out.AppConfigured(e)
	case *pushv1.CredentialsSet:
		out.CredentialsSet(e)
	case *pushv1.AccessKeyIssued:
		out.AccessKeyIssued(e)
	case *pushv1.AccessKeyRevoked:
		out.AccessKeyRevoked(e)
	case *pushv1.TokenRegistered:
		out.TokenRegistered(e)
	case *pushv1.TokenUnregistered:
		out.TokenUnregistered(e)
	case *pushv1.TokenInvalidated:
		out.TokenInvalidated(e)
	case *pushv1.ChannelSubscribed:
		out.ChannelSubscribed(e)
	case *pushv1.ChannelUnsubscribed:
		out.ChannelUnsubscribed(e)
	default:
		return fmt.Errorf("%s[%d]@%d: nobody copies events of type %d", r.Topic, r.Partition, r.Offset, r.Type())
	}
	return nil
}

// Sum is a fingerprint of records that knows no order and no partitions: equal sums of two logs mean that every record of one stands in
// the other as often, to 1 in 2^64.
type Sum struct {
	Records int64
	Hash    uint64
}

// Add counts a record.
func (s *Sum) Add(topic schemas.Topic, key, value []byte) {
	var d xxhash.Digest
	d.Reset()
	for _, part := range [][]byte{[]byte(topic), {0}, key, {0}, value} {
		_, _ = d.Write(part) // it never fails
	}
	s.Records++
	s.Hash += d.Sum64()
}
