package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/api"
	"github.com/campanile-push/campanile/eventlog"
)

// desk is where broadcasts are asked for and controlled: the log, or the API of a running campanile.
type desk interface {
	// send takes the body of POST /api/v3/broadcasts.
	send(ctx context.Context, app string, body []byte, idempotencyKey string) (api.Accepted, error)
	list(ctx context.Context, app, state string, limit int) ([]api.Broadcast, error)
	show(ctx context.Context, id string) (api.Broadcast, error)
	control(ctx context.Context, id string, o order) error
	// watch calls each with what is known, a few times a second, until the broadcast has ended, ctx ends or each fails.
	watch(ctx context.Context, id string, each func(api.Broadcast) error) error
}

// order is what is to be done with a broadcast.
type order struct {
	verb   string // pause, resume, cancel or rate
	rate   float64
	reason string
}

// broadcasts is what the broadcast commands share.
type broadcasts struct {
	t      *terminal
	asJSON bool
	remote remote
}

func broadcastCommand(t *terminal) *cobra.Command {
	b := &broadcasts{t: t}
	cmd := &cobra.Command{
		Use:   "broadcast",
		Short: "Send broadcasts, watch them, and steer them while they run",
		Long: `Sends to every phone of some channels, and controls what is on its way: pause stops the expansion and lets what was expanded drain, cancel is final
and drops what is queued, rate sets how many pushes a second it may take. All of it takes hold within a page.

Works on the log, as an operator; with --url and --key through the API, as far as the key reaches.`,
	}
	cmd.AddCommand(b.sendCommand(), b.listCommand(), b.showCommand(), b.watchCommand(),
		b.controlCommand("pause ID", "Stop expanding a broadcast; what was expanded drains"),
		b.controlCommand("resume ID", "Go on with a paused broadcast"),
		b.controlCommand("cancel ID", "End a broadcast for ever; what is queued is dropped"),
		b.rateCommand(),
	)
	f := cmd.PersistentFlags()
	f.BoolVar(&b.asJSON, "json", false, "as JSON")
	f.StringVar(&b.remote.url, "url", "", "address of a running campanile: work through its API instead of the log")
	f.StringVar(&b.remote.app, "app", "", "with --url: the app, where no argument names it")
	f.StringVar(&b.remote.key, "key", "", "with --url: an access key of the app that may broadcast; other users of this machine can read it")
	f.StringVar(&b.remote.keyFile, "key-file", "", "with --url: a file that holds the key")
	return cmd
}

// atDesk runs a command where broadcasts are kept.
func (b *broadcasts) atDesk(cmd *cobra.Command, app string, do func(ctx context.Context, d desk) error) error {
	if b.remote.given() {
		d, err := b.remote.desk(app)
		if err != nil {
			return err
		}
		return do(cmd.Context(), d)
	}
	cfg, _, err := b.t.setup(cmd)
	if err != nil {
		return err
	}
	return b.t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
		return do(ctx, &logDesk{cfg, log})
	})
}

// message is what flags say of a broadcast: the body of POST /api/v3/broadcasts.
type message struct {
	Channels  []string       `json:"channels,omitempty"`
	Platforms []string       `json:"platforms,omitempty"`
	Message   map[string]any `json:"message,omitempty"`
	SendAt    string         `json:"send_at,omitempty"`
	ExpiresAt string         `json:"expires_at,omitempty"`
	Rate      float64        `json:"rate,omitempty"`
	Spread    int64          `json:"spread_seconds,omitempty"`
	DryRun    bool           `json:"dry_run,omitempty"`
}

func (b *broadcasts) sendCommand() *cobra.Command {
	var m message
	var text, title, body, file, idempotencyKey string
	var data []string
	var spread time.Duration
	var watch bool
	cmd := &cobra.Command{
		Use:   "send APP",
		Short: "Send a broadcast, and print its id",
		Long: `Sends a broadcast to every phone of the given channels, each phone once, and prints its id.

  campanile broadcast send moodle --channel staff --title "Fire drill" --body "At noon" --watch
  campanile broadcast send moodle --file broadcast.json     the body of POST /api/v3/broadcasts; "-" is standard input`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sent, err := b.readBody(file, func() (any, error) {
				m.Message = map[string]any{}
				for name, s := range map[string]string{"text": text, "title": title, "body": body} {
					if s != "" {
						m.Message[name] = s
					}
				}
				pairs, err := parsePairs(data)
				if len(pairs) > 0 {
					m.Message["data"] = pairs
				}
				if len(m.Message) == 0 {
					m.Message = nil
				}
				m.Spread = int64(spread / time.Second)
				return m, err
			})
			if err != nil {
				return err
			}
			return b.atDesk(cmd, args[0], func(ctx context.Context, d desk) error {
				accepted, err := d.send(ctx, args[0], sent, idempotencyKey)
				if err != nil {
					return err
				}
				b.printAccepted(accepted)
				if !watch || accepted.DryRun {
					return nil
				}
				return b.follow(ctx, d, accepted.ID)
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&m.Channels, "channel", nil, "channels; a phone in several gets it once (default: the channel default)")
	f.StringSliceVar(&m.Platforms, "device", nil, "only phones of these platforms: android, ios, or as they registered")
	f.StringVar(&text, "text", "", "the alert, in one text")
	f.StringVar(&title, "title", "", "the alert's title")
	f.StringVar(&body, "body", "", "the alert's body")
	f.StringArrayVar(&data, "extra", nil, "name=value for the app; may be given again")
	f.StringVar(&m.SendAt, "send-at", "", "not before this time, such as 2026-11-23T08:00:00Z")
	f.StringVar(&m.ExpiresAt, "expires-at", "", "no longer than to this time")
	f.Float64Var(&m.Rate, "rate", 0, "pushes a second; 0: no limit of its own")
	f.DurationVar(&spread, "spread", 0, "over this long, such as 30m")
	f.BoolVar(&m.DryRun, "dry-run", false, "count the audience and send nothing")
	f.StringVar(&file, "file", "", "read the whole broadcast from a JSON file instead of flags")
	f.StringVar(&idempotencyKey, "idempotency-key", "", "the same key again is the same broadcast, not another one")
	f.BoolVar(&watch, "watch", false, "watch it until it has ended")
	for _, name := range []string{"channel", "device", "text", "title", "body", "extra", "send-at", "expires-at", "rate", "spread", "dry-run"} {
		cmd.MarkFlagsMutuallyExclusive("file", name)
	}
	return cmd
}

// readBody is the file's content, or what the flags say.
func (b *broadcasts) readBody(file string, flags func() (any, error)) ([]byte, error) {
	switch file {
	case "":
		m, err := flags()
		if err != nil {
			return nil, err
		}
		return json.Marshal(m)
	case "-":
		return io.ReadAll(b.t.in)
	}
	return os.ReadFile(file)
}

func parsePairs(list []string) (map[string]string, error) {
	pairs := map[string]string{}
	for _, p := range list {
		name, v, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--extra %q: want name=value", p)
		}
		pairs[name] = v
	}
	return pairs, nil
}

func (b *broadcasts) printAccepted(a api.Accepted) {
	switch {
	case b.asJSON:
		_ = json.NewEncoder(b.t.out).Encode(a)
	case a.DryRun:
		fmt.Fprintf(b.t.out, "nothing was sent; the audience of %s is about %d phones\n", strings.Join(a.Channels, ", "), a.AudienceEstimate)
	default:
		fmt.Fprintln(b.t.out, a.ID)
		fmt.Fprintf(b.t.err, "broadcast to %s, about %d phones: `campanile broadcast watch %s`\n", strings.Join(a.Channels, ", "), a.AudienceEstimate, a.ID)
	}
}

func (b *broadcasts) listCommand() *cobra.Command {
	var state string
	var limit int
	cmd := &cobra.Command{
		Use:   "list [APP]",
		Short: "List broadcasts, the newest first",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			app := ""
			if len(args) > 0 {
				app = args[0]
			}
			if limit < 1 {
				return errors.New("--limit: want at least 1")
			}
			return b.atDesk(cmd, app, func(ctx context.Context, d desk) error {
				list, err := d.list(ctx, app, state, limit)
				if err != nil {
					return err
				}
				if b.asJSON {
					return json.NewEncoder(b.t.out).Encode(list)
				}
				var rows [][]string
				for i := range list {
					x := &list[i]
					rows = append(rows, []string{
						x.ID, x.App, x.State, strings.Join(x.Channels, ","), x.RequestedAt.Format(time.RFC3339),
						strconv.FormatInt(x.Progress.Expanded, 10), strconv.FormatInt(x.Progress.Delivered, 10),
						strconv.FormatInt(x.Progress.Failed, 10), strconv.FormatInt(x.Progress.Remaining, 10),
					})
				}
				return printTable(b.t.out, "ID\tAPP\tSTATE\tCHANNELS\tREQUESTED\tEXPANDED\tDELIVERED\tFAILED\tREMAINING", rows)
			})
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "only those in this state: scheduled, running, paused, draining, cancelling, cancelled, ended, or live for all that have not ended")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many")
	return cmd
}

func (b *broadcasts) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show a broadcast and its counts",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.atDesk(cmd, "", func(ctx context.Context, d desk) error {
				x, err := d.show(ctx, args[0])
				if err != nil {
					return err
				}
				return b.print(&x)
			})
		},
	}
}

func (b *broadcasts) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch ID",
		Short: "Watch a broadcast until it has ended",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return b.atDesk(cmd, "", func(ctx context.Context, d desk) error { return b.follow(ctx, d, args[0]) })
		},
	}
}

func (b *broadcasts) controlCommand(use, short string) *cobra.Command {
	o := order{verb: strings.Fields(use)[0]}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.order(cmd, args[0], o) },
	}
	if o.verb != "resume" {
		cmd.Flags().StringVar(&o.reason, "reason", "", "why, for whoever looks later")
	}
	return cmd
}

func (b *broadcasts) rateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rate ID PUSHES_PER_SECOND",
		Short: "Change how many pushes a second a broadcast may take; 0 is no limit",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := strconv.ParseFloat(args[1], 64)
			if err != nil || !(rate >= 0 && rate <= 1e9) {
				return fmt.Errorf("%q is no rate: want pushes a second, 0 for no limit", args[1])
			}
			return b.order(cmd, args[0], order{verb: "rate", rate: rate})
		},
	}
}

func (b *broadcasts) order(cmd *cobra.Command, id string, o order) error {
	return b.atDesk(cmd, "", func(ctx context.Context, d desk) error {
		if err := d.control(ctx, id, o); err != nil {
			return err
		}
		done := map[string]string{"pause": "paused", "resume": "resumed", "cancel": "cancelled", "rate": "rate_changed"}[o.verb]
		if b.asJSON {
			return json.NewEncoder(b.t.out).Encode(map[string]string{"id": id, "status": done})
		}
		fmt.Fprintf(b.t.out, "broadcast %s: %s\n", id, strings.ReplaceAll(done, "_", " "))
		return nil
	})
}

// print shows one broadcast.
func (b *broadcasts) print(x *api.Broadcast) error {
	if b.asJSON {
		return json.NewEncoder(b.t.out).Encode(x)
	}
	p := &x.Progress
	rows := [][]string{
		{"broadcast", x.ID},
		{"app", x.App},
		{"state", x.State},
		{"channels", strings.Join(x.Channels, ", ")},
		{"platforms", strings.Join(x.Platforms, ", ")},
		{"key", x.KeyID},
		{"requested", stamp(x.RequestedAt)},
		{"send at", stamp(x.SendAt)},
		{"expires", stamp(x.ExpiresAt)},
		{"ended", stamp(x.EndedAt)},
		{"paused", x.Paused.String()},
		{"cancelled", x.Cancelled.String()},
		{"limited by", p.LimitedBy},
	}
	if x.Rate > 0 {
		rows = append(rows, []string{"own rate", fmt.Sprintf("%g pushes a second", x.Rate)})
	}
	if x.SpreadSeconds > 0 {
		rows = append(rows, []string{"spread over", (time.Duration(x.SpreadSeconds) * time.Second).String()})
	}
	if x.OtherRequests > 0 {
		rows = append(rows, []string{"note", fmt.Sprintf("%d other requests came under this id; the first in the log counts", x.OtherRequests)})
	}
	for _, r := range rows {
		if r[1] != "" {
			fmt.Fprintf(b.t.out, "%-12s %s\n", r[0], r[1])
		}
	}
	counts := [][]string{}
	row := func(name string, c ...int64) {
		cells := []string{name}
		for _, n := range c {
			cells = append(cells, strconv.FormatInt(n, 10))
		}
		counts = append(counts, cells)
	}
	for _, t := range p.Transports {
		row(t.Transport, t.Expanded, t.Delivered, t.Invalid, t.Rejected, t.Expired, t.Cancelled, t.Repeats)
	}
	row("all", p.Expanded, p.Delivered, p.Invalid, p.Rejected, p.Expired, p.Cancelled, p.Repeats)
	fmt.Fprintln(b.t.out)
	return printTable(b.t.out, "PLATFORM\tEXPANDED\tDELIVERED\tINVALID\tREJECTED\tEXPIRED\tCANCELLED\tREPEATS", counts)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}
