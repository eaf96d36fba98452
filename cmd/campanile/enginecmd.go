package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/projections/chdb"
)

// engineCommand serves the embedded analytics engine to other processes of this host, as a ClickHouse server would be.
func engineCommand(t *terminal) *cobra.Command {
	var o chdb.Options
	var keyFile string
	cmd := &cobra.Command{
		Use: "analytics-engine", Short: "Serve the embedded ClickHouse engine to the other processes of this host", Args: cobra.NoArgs,
		Long: `Runs the embedded analytics engine (libchdb) as a server of its own on loopback, where stages in processes of their own would otherwise need a ClickHouse
server. The key in --key-file is the password of its only user; the file is made where there is none. Prints CLICKHOUSE_URL=…, with the key in it, when it
answers: what --clickhouse-url of the other commands takes.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			if o.Dir == "" || keyFile == "" {
				return errors.New("--dir and --key-file must be given")
			}
			if o.Key, err = secretFile("", keyFile, func() string { return rand.Text() + "\n" }); err != nil {
				return fmt.Errorf("--key-file: %w", err)
			}
			if o.Key = strings.TrimSpace(o.Key); o.Key == "" {
				return fmt.Errorf("--key-file: %s is empty", keyFile)
			}
			o.Library, o.Logger = c.ClickHouse.Library, logger.With("stage", "analytics.engine")
			o.Ready = func(at, key string) {
				u, err := url.Parse(at)
				if err != nil {
					logger.Error("the engine has an address that is none", "error", err)
					return
				}
				u.User, u.Path = url.UserPassword("campanile", key), "/campanile"
				fmt.Fprintln(t.out, "CLICKHOUSE_URL="+u.String())
			}
			return chdb.Serve(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.Dir, "dir", "", "folder of its data")
	cmd.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:18123", "address on loopback")
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file of its key, for its owner only")
	return cmd
}
