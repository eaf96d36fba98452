package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// healthPatience is how long `campanile health` waits for an answer: less than the checks of container runtimes do.
const healthPatience = 3 * time.Second

func healthCommand(t *terminal) *cobra.Command {
	var alive bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the process on this host whether it is ready",
		Long: `Asks /readyz at --ops-listen, prints what it waits for, and fails unless it is ready. It is the health check of containers that hold nothing else.
With --alive it asks /healthz instead: whether the process answers at all.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := t.setup(cmd)
			if err != nil {
				return err
			}
			waiting, err := askHealth(cmd.Context(), localAddress(cfg.Ops.Listen), alive)
			if err != nil {
				return err
			}
			if len(waiting) > 0 {
				return fmt.Errorf("not ready: %s", strings.Join(waiting, "; "))
			}
			fmt.Fprintln(t.out, "ok")
			return nil
		},
	}
	cmd.Flags().BoolVar(&alive, "alive", false, "ask only whether it answers")
	return cmd
}

// localAddress is where an address to listen on is reached from the same host.
func localAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
		if err == nil && a.Is6() && !a.Is4In6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

// askHealth returns what the process waits for, sorted; none when it is ready, or alive where that is the question.
func askHealth(ctx context.Context, address string, alive bool) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	path := "/readyz"
	if alive {
		path = "/healthz"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no answer: is it running, and is --ops-listen the same? %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return nil, nil
	}
	if resp.StatusCode != http.StatusServiceUnavailable {
		return nil, fmt.Errorf("%s answers %s: is another program there?", address, resp.Status)
	}
	var answer struct {
		Waiting map[string]string `json:"waiting"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Waiting) == 0 {
		return nil, errors.Join(errors.New("not ready, and it does not say why"), err)
	}
	var waiting []string
	for part, why := range answer.Waiting {
		waiting = append(waiting, part+": "+why)
	}
	slices.Sort(waiting)
	return waiting, nil
}
