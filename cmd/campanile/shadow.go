package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/campanile-push/campanile/migrate"
)

func shadowCommand(t *terminal) *cobra.Command {
	var upstream, to, listen string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "shadow",
		Short: "Stand in front of an AirNotifier, try a Campanile with the same requests, and report where they differ",
		Long: `Answers every request from the AirNotifier at --upstream, byte for byte, and sends it to the Campanile at --to afterwards. No client waits for Campanile. When it is stopped it
prints every kind of difference between the answers, without tokens, keys and texts; each new kind is logged at once.

Campanile takes every push too. So that no phone gets it twice, --to must be a trial that cannot deliver: with a data folder of its own, and apps without credentials.

  campanile import airnotifier export --data trial --no-credentials
  campanile up --data trial --http-listen 127.0.0.1:8811
  campanile shadow --upstream http://airnotifier:8801 --to http://127.0.0.1:8811 --listen 0.0.0.0:8801`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, logger, err := t.setup(cmd)
			if err != nil {
				return err
			}
			o := migrate.ShadowOptions{Log: logger.With("stage", "shadow")}
			if o.Upstream, err = baseURL("upstream", upstream); err != nil {
				return err
			}
			if o.To, err = baseURL("to", to); err != nil {
				return err
			}
			shadow := migrate.NewShadow(o)
			var config net.ListenConfig
			listener, err := config.Listen(cmd.Context(), "tcp", listen)
			if err != nil {
				return fmt.Errorf("--listen: %w", err)
			}
			group, ctx := errgroup.WithContext(cmd.Context())
			certs, err := apiCertificates(cfg, logger, nil)
			if err != nil {
				return errors.Join(err, listener.Close())
			}
			scheme, secure := "http://", (*tls.Config)(nil)
			if certs != nil {
				scheme, secure = "https://", certs.config()
				group.Go(func() error { return certs.run(ctx) })
			}
			logger.Info("ready", "shadow", scheme+listener.Addr().String())
			group.Go(func() error { return shadow.Run(ctx) })
			group.Go(func() error { return serveHTTP(ctx, listener, http.Handler(shadow), secure, drainTime, logger) })
			if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
				return err
			}
			return t.printShadow(shadow, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&upstream, "upstream", "", "URL of the AirNotifier that answers")
	f.StringVar(&to, "to", "", "URL of the Campanile that is tried; it must not be able to deliver")
	f.StringVar(&listen, "listen", "127.0.0.1:8800", "address for the clients; TLS where --http-tls-cert and --http-tls-key are set")
	f.BoolVar(&asJSON, "json", false, "print the differences as JSON")
	for _, name := range []string{"upstream", "to"} {
		_ = cmd.MarkFlagRequired(name) // an error only for a flag that is not there
	}
	return cmd
}

func baseURL(flag, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--%s: want an http or https address, such as http://127.0.0.1:8801", flag)
	}
	return u, nil
}

func (t *terminal) printShadow(s *migrate.Shadow, asJSON bool) error {
	count, differences := s.Count(), s.Differences()
	if asJSON {
		text, err := json.MarshalIndent(struct {
			migrate.ShadowCount
			Differences []migrate.CountedDifference `json:"differences"`
		}{count, differences}, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintln(t.out, string(text))
		return nil
	}
	var rows [][]string
	for _, d := range differences {
		rows = append(rows, []string{strconv.FormatInt(d.Count, 10), d.Method, d.Route, d.Upstream, d.Campanile})
	}
	if len(rows) > 0 {
		if err := printTable(t.out, "COUNT\tMETHOD\tROUTE\tAIRNOTIFIER\tCAMPANILE", rows); err != nil {
			return err
		}
	}
	fmt.Fprintf(t.out, "same=%d different=%d skipped=%d failed=%d\n", count.Same, count.Different, count.Skipped, count.Failed)
	return nil
}
