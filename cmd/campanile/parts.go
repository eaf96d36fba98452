package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/eventlog/broker"
	"github.com/campanile-push/campanile/vault"
)

// embeddedPartitions are few: one process handles them all, and each costs files and memory.
const embeddedPartitions = 4

// openWait bounds how long a start waits for a broker or a database.
const openWait = 30 * time.Second

// secrets are the keys that a process holds.
type secrets struct {
	keyring *vault.Keyring
	hasher  vault.Hasher
}

// loadSecrets reads the key files. In the data folder they are made where there are none; a file that a setting names must be there.
func loadSecrets(c *Config) (*secrets, error) {
	master, err := secretFile(c.Vault.MasterKeyFile, filepath.Join(c.Data, "master.key"), func() string { return vault.NewKeyLine("1") })
	if err != nil {
		return nil, fmt.Errorf("vault.master_key_file: %w", err)
	}
	keyring, err := vault.ParseKeyring(master)
	if err != nil {
		return nil, fmt.Errorf("vault.master_key_file: %w", err)
	}
	hash, err := secretFile(c.Vault.HashKeyFile, filepath.Join(c.Data, "hash.key"), vault.NewHashKey)
	if err != nil {
		return nil, fmt.Errorf("vault.hash_key_file: %w", err)
	}
	hasher, err := vault.ParseHasher(hash)
	if err != nil {
		return nil, fmt.Errorf("vault.hash_key_file: %w", err)
	}
	return &secrets{keyring, hasher}, nil
}

func secretFile(named, own string, create func() string) (string, error) {
	if named != "" {
		text, err := os.ReadFile(named)
		return string(text), err
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		return "", err
	}
	return vault.LoadOrCreate(own, create)
}

// checkSharedSecrets refuses generated secrets on Kafka: processes on several hosts must have the same ones.
func checkSharedSecrets(c *Config) error {
	if c.embedded() || c.Vault.MasterKeyFile != "" && c.Vault.HashKeyFile != "" {
		return nil
	}
	return errors.New("vault.master_key_file and vault.hash_key_file must be set with kafka.brokers: every process needs the same ones; " +
		"`campanile key-file` and `campanile key-file --hash` make them")
}

func brokerDir(c *Config) string { return filepath.Join(c.Data, "log") }

// logConfig is how to reach the log; dial is nil on Kafka.
func logConfig(c *Config, dial broker.Dial, generationBase int64) (eventlog.Config, error) {
	cfg := eventlog.Config{
		Brokers:            c.Kafka.Brokers,
		Prefix:             c.Kafka.Prefix,
		Replication:        c.Kafka.Replication,
		SessionTimeout:     c.Kafka.SessionTimeout,
		TransactionTimeout: c.Kafka.TransactionTimeout,
		SASL:               eventlog.SASL{Mechanism: c.Kafka.SASL.Mechanism, User: c.Kafka.SASL.User, Password: c.Kafka.SASL.Password},
		GenerationBase:     generationBase,
	}
	if dial != nil {
		cfg.Brokers, cfg.Dial, cfg.Replication = broker.Brokers(), dial, 1
		return cfg, nil
	}
	if c.Kafka.TLS || c.Kafka.CA != "" {
		pool, err := certPool(c.Kafka.CA)
		if err != nil {
			return cfg, fmt.Errorf("kafka.ca: %w", err)
		}
		cfg.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return cfg, nil
}

// certPool reads a PEM file; nil, the system's pool, for no file.
func certPool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // a nil pool is the system's, by crypto/tls
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}

// openEmbedded starts the broker of the data folder.
func openEmbedded(c *Config, logger *slog.Logger) (*broker.Broker, error) {
	return broker.Open(broker.Options{Dir: brokerDir(c), Fsync: c.Embedded.Fsync, MaxBytes: c.Embedded.MaxLog, Logger: logger})
}

// openLog connects to Kafka, to the embedded broker of a running `campanile up`, or starts that of the data folder. close is never nil.
func openLog(ctx context.Context, c *Config, logger *slog.Logger, registry prometheus.Registerer) (log *eventlog.Log, closeLog func(), err error) {
	closeBroker := func() {}
	var dial broker.Dial
	var base int64
	if c.embedded() {
		var running bool
		if dial, running = broker.Running(brokerDir(c)); !running {
			b, err := openEmbedded(c, logger)
			if err != nil {
				return nil, func() {}, err
			}
			dial, base = b.Dial, b.Boots()<<32
			closeBroker = func() { closeWithin(logger, "embedded log", b.Close) }
		}
	}
	cfg, err := logConfig(c, dial, base)
	if err != nil {
		closeBroker()
		return nil, func() {}, err
	}
	opening, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	log, err = eventlog.Open(opening, cfg, logger, registry)
	if err != nil {
		closeBroker()
		return nil, func() {}, fmt.Errorf("open the log: %w", err)
	}
	closeLog = func() {
		closeWithin(logger, "log", log.Close)
		closeBroker()
	}
	if c.embedded() { // on Kafka it may lack the rights: `campanile topics apply`
		if _, err := log.CreateTopics(opening, partitions(c)); err != nil {
			closeLog()
			return nil, func() {}, fmt.Errorf("create the topics: %w", err)
		}
	}
	return log, closeLog, nil
}

// partitions is the count asked for; zero takes what is there, or the default of Kafka.
func partitions(c *Config) int32 {
	if c.Kafka.Partitions == 0 && c.embedded() {
		return embeddedPartitions
	}
	return c.Kafka.Partitions
}

// closeWithin closes a part at shutdown, when the command's own context is over.
func closeWithin(logger *slog.Logger, part string, closePart func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), openWait)
	defer cancel()
	if err := closePart(ctx); err != nil {
		logger.Error("a part did not close cleanly", "part", part, "error", err)
	}
}

// withLog runs a short command on the log.
func (t *terminal) withLog(cmd *cobra.Command, do func(ctx context.Context, log *eventlog.Log, s *secrets) error) error {
	c, logger, err := t.setup(cmd)
	if err != nil {
		return err
	}
	if !cmd.Flags().Changed("log-level") {
		logger = t.logger(c, slog.LevelWarn) // a short command has its own words
	}
	if err := checkSharedSecrets(c); err != nil {
		return err
	}
	s, err := loadSecrets(c)
	if err != nil {
		return err
	}
	log, closeLog, err := openLog(cmd.Context(), c, logger, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	defer closeLog()
	return do(cmd.Context(), log, s)
}
