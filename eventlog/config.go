package eventlog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Defaults of Config.
const (
	DefaultSessionTimeout     = 6 * time.Second
	DefaultTransactionTimeout = 10 * time.Second
	DefaultDeliveryTimeout    = 30 * time.Second
	DefaultBufferedBytes      = 64 << 20
	DefaultPartitions         = 24 // on Kafka; the embedded broker is created with fewer
)

const (
	batchMaxBytes = 256 << 10 // the best of 16 KiB to 5 MiB measured (facts, 2.1)
	// embeddedFetchBytes is the most that one answer of the embedded broker holds: it does one thing at a time, and 4 MB, a megabyte of
	// each partition, take it several milliseconds in which a direct push waits.
	embeddedFetchBytes = 1 << 20
	maxBufferedRecords = 400_000 // records; the bound in bytes is met first
	metadataMinAge     = 100 * time.Millisecond
	heartbeatsASession = 6 // a sender may be silent for half a session: three heartbeats
	rebalanceTimeout   = 30 * time.Second
	// A partition that joins, or goes on after a pause, is asked for by the next fetch only: when this one's wait is over.
	fetchWait = 250 * time.Millisecond
)

// Config says how to reach a cluster. The zero value of each field but Brokers works.
type Config struct {
	Brokers []string // host:port to start from
	// Dial opens a connection in place of TCP, as the embedded broker wants it.
	Dial func(ctx context.Context, network, host string) (net.Conn, error)
	// Prefix stands before the names of topics, groups and transactional ids, so that a cluster can be shared.
	Prefix string
	TLS    *tls.Config
	SASL   SASL
	// ClientID stands in the broker's logs and quotas; "campanile" when empty.
	ClientID string
	// Replication of topics that are created; 0: the broker's default.
	Replication int16
	// MinISR of topics that are created; 0: 2 where Replication is 3 or more, and the broker's default elsewhere.
	MinISR int
	// SegmentBytes of topics that are created; 0: the broker's default.
	SegmentBytes int
	// SessionTimeout is how long a group waits for a silent member; heartbeats are a sixth of it.
	SessionTimeout     time.Duration
	TransactionTimeout time.Duration
	// Compression of what is written: "snappy" (empty is the same), "none", "lz4" or "zstd".
	Compression string
	// Linger is how long an append waits for company in its batch. 0 is best where many append at once: what comes while five
	// requests are on their way makes the next batch (measured: 512 callers wait 4 µs a record at 0, 12 µs at 5 ms).
	Linger time.Duration
	// DeliveryTimeout is the age at which an append that no broker has taken fails.
	DeliveryTimeout time.Duration
	// BufferedBytes bounds keys and values that wait for brokers in each client.
	BufferedBytes int
	// GenerationBase is added to group generations. A broker whose generations may start over passes a count of its starts,
	// shifted left by 32.
	GenerationBase int64
}

// SASL is how to authenticate. The zero value does not.
type SASL struct {
	Mechanism string // "", "plain", "scram-sha-256" or "scram-sha-512"
	User      string
	Password  string
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch strings.ToLower(s.Mechanism) {
	case "":
		return nil, nil //nolint:nilnil // no mechanism is an answer
	case "plain":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("SASL mechanism %q: want plain, scram-sha-256 or scram-sha-512", s.Mechanism)
}

func (c Config) withDefaults() Config {
	if c.ClientID == "" {
		c.ClientID = "campanile"
	}
	if c.SessionTimeout == 0 {
		c.SessionTimeout = DefaultSessionTimeout
	}
	if c.TransactionTimeout == 0 {
		c.TransactionTimeout = DefaultTransactionTimeout
	}
	if c.DeliveryTimeout == 0 {
		c.DeliveryTimeout = DefaultDeliveryTimeout
	}
	if c.BufferedBytes == 0 {
		c.BufferedBytes = DefaultBufferedBytes
	}
	return c
}

func (c Config) codec() (kgo.CompressionCodec, error) {
	switch c.Compression {
	case "", "snappy":
		return kgo.SnappyCompression(), nil
	case "none":
		return kgo.NoCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.NoCompression(), fmt.Errorf("compression %q: want snappy, none, lz4 or zstd", c.Compression)
}

// options are what every client of the log has in common. They make nothing by themselves: a producer is idempotent and
// waits for all replicas by franz-go's defaults.
func (c Config) options() ([]kgo.Opt, error) {
	if len(c.Brokers) == 0 {
		return nil, errors.New("no brokers: want at least one host:port")
	}
	codec, err := c.codec()
	if err != nil {
		return nil, err
	}
	mechanism, err := c.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.DisableClientMetrics(),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // schemas.Out decides
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(batchMaxBytes),
		kgo.MaxBufferedRecords(maxBufferedRecords),
		kgo.MaxBufferedBytes(2 * c.BufferedBytes), // appends are admitted by BufferedBytes; this is never met
		kgo.ProducerLinger(c.Linger),
		kgo.RecordDeliveryTimeout(c.DeliveryTimeout),
		kgo.ConsiderMissingTopicDeletedAfter(30 * time.Second),
	}
	if c.Dial != nil {
		opts = append(opts, kgo.Dialer(c.Dial), kgo.FetchMaxBytes(embeddedFetchBytes))
	}
	if c.TLS != nil {
		opts = append(opts, kgo.DialTLSConfig(c.TLS))
	}
	if mechanism != nil {
		opts = append(opts, kgo.SASL(mechanism))
	}
	return opts, nil
}

// groupOptions are what every member of a group has in common: it commits by itself, never resets, and rebalances only
// between two polls.
func (c Config) groupOptions(group string) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(c.Prefix + group),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(c.SessionTimeout),
		kgo.HeartbeatInterval(c.SessionTimeout / (heartbeatsASession + 1)),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.ConsumeStartOffset(kgo.NoResetOffset()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	}
}
