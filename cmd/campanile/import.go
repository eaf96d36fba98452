package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/migrate"
	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/fcm"
)

func importCommand(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Take apps, keys and devices over from AirNotifier, or devices from a Moodle site",
		Long: `An import says to the log what the log does not have yet, and changes nothing of what was decided in Campanile since. So it can run again at any time, while
Campanile serves too; and one that was stopped, or killed, goes on where it was when it is run again.`,
	}
	cmd.AddCommand(asJob(importAirNotifierCommand(t)), asJob(importMoodleCommand(t)))
	return cmd
}

// importFlags are common to both imports.
type importFlags struct {
	dryRun, json bool
}

func (f *importFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "count what would become of everything, and write nothing")
	cmd.Flags().BoolVar(&f.json, "json", false, "print the counts as JSON")
}

func importAirNotifierCommand(t *terminal) *cobra.Command {
	var f importFlags
	var policy string
	var named struct{ applications, keys, tokens []string }
	o := migrate.Options{}
	cmd := &cobra.Command{
		Use:   "airnotifier DIR|FILE…",
		Short: "Import mongoexport's files of an AirNotifier: applications, keys, tokens",
		Long: `Reads what mongoexport writes, one document a line or --jsonArray, relaxed or canonical, also packed with gzip:

  mongoexport --db airnotifier --collection applications --out export/applications.json
  mongoexport --db app_demo    --collection keys         --out export/app_demo.keys.json
  mongoexport --db app_demo    --collection tokens       --out export/app_demo.tokens.json
  campanile import airnotifier export --dry-run

Files are known by their names, <database>.<collection>.json or <database>/<collection>.json, or by the flags. Logs, managers, users and objects are never read.
Keys keep their values, so that no site has to be set up again; the log holds their hashes alone. Credentials are sealed under the master key.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args)+len(named.applications)+len(named.keys)+len(named.tokens) == 0 {
				return errors.New("name the folder or the files of the export")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Policy, err = parsePolicy(policy); err != nil {
				return err
			}
			files, skipped, err := migrate.Find(args...)
			if err != nil {
				return err
			}
			files = append(files, namedFiles(migrate.Applications, named.applications)...)
			files = append(files, namedFiles(migrate.Keys, named.keys)...)
			files = append(files, namedFiles(migrate.Tokens, named.tokens)...)
			if len(files) == 0 {
				return fmt.Errorf("no export is in %s: want files such as app_demo.tokens.json, or name them with --tokens, --keys and --applications", strings.Join(args, ", "))
			}
			o.DryRun = f.dryRun
			return t.runImport(cmd, &o, f, func(ctx context.Context, log *eventlog.Log, state *migrate.State) (*migrate.Report, error) {
				report, err := migrate.AirNotifier(ctx, log, state, files, o)
				if err != nil {
					return nil, err
				}
				for _, why := range slices.Sorted(maps.Keys(skipped)) {
					report.Rows = append(report.Rows, migrate.Row{What: "files", Result: migrate.LeftOut, Reason: why, Count: int64(skipped[why])})
				}
				return report, nil
			})
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.App, "app", "", "the app of files whose names do not say it")
	flags.StringVar(&o.Prefix, "prefix", "app_", "AirNotifier's appprefix, with which the databases' names begin")
	flags.StringSliceVar(&named.applications, "applications", nil, "file of the collection applications, under any name")
	flags.StringSliceVar(&named.keys, "keys", nil, "[APP=]FILE of the collection keys")
	flags.StringSliceVar(&named.tokens, "tokens", nil, "[APP=]FILE of the collection tokens")
	flags.StringVar(&policy, "access-keys", "manual", "who gets new keys of the imported apps from /accesskeys/: open, allow-list, remote-check or manual")
	flags.BoolVar(&o.UnboundKeys, "unbound-keys", false, "leave the sites' keys as AirNotifier had them: each reaches every phone of the app")
	flags.BoolVar(&o.NoCredentials, "no-credentials", false, "leave the credentials out, so that nothing can be delivered: for a trial")
	flags.BoolVar(&o.ProveSites, "prove-sites", false, "let each key broadcast to the site that its description names, if no other key names it")
	return cmd
}

// namedFiles reads arguments of the form [APP=]FILE.
func namedFiles(c migrate.Collection, args []string) (files []migrate.File) {
	for _, arg := range args {
		f := migrate.File{Path: arg, Collection: c}
		if app, path, ok := strings.Cut(arg, "="); ok && schemas.CheckApp(app) == nil {
			f.App, f.Path = app, path
		}
		files = append(files, f)
	}
	return files
}

func importMoodleCommand(t *terminal) *cobra.Command {
	var f importFlags
	var o migrate.MoodleOptions
	cmd := &cobra.Command{
		Use:   "moodle FILE.csv…",
		Short: "Import the devices of a Moodle site from its table user_devices",
		Long: `Reads CSV (or tabs, or semicolons) with a line of column names, of which appid, platform and pushid are needed:

  SELECT appid, platform, pushid FROM mdl_user_devices

With --key, the id of the site's key in "campanile key list", the devices join the site's own channel, so that it can broadcast to them. Where the column enable of
message_airnotifier_devices was joined, devices that their users switched off are left out.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.DryRun = f.dryRun
			return t.runImport(cmd, &o.Options, f, func(ctx context.Context, log *eventlog.Log, state *migrate.State) (*migrate.Report, error) {
				return migrate.Moodle(ctx, log, state, args, o)
			})
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.App, "app", "", "the app that the devices belong to")
	flags.StringVar(&o.MobileApp, "mobile-app", "", "bundle id of the mobile app whose rows are taken; empty: the one that is --app but for its dots")
	flags.StringVar(&o.Channel, "channel", "", "channel that the devices join; empty: default, or the site's own with --key")
	flags.StringVar(&o.KeyID, "key", "", "id of the site's access key, or the beginning of it")
	_ = cmd.MarkFlagRequired("app") // an error only for a flag that is not there
	return cmd
}

// runImport reads what the log has, imports, and prints the report.
func (t *terminal) runImport(
	cmd *cobra.Command, o *migrate.Options, f importFlags, do func(context.Context, *eventlog.Log, *migrate.State) (*migrate.Report, error),
) error {
	c, _, err := t.setup(cmd)
	if err != nil {
		return err
	}
	return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, s *secrets) error {
		bar := t.importBar()
		bar.step("reading the log", 0, -1)
		state := migrate.NewState()
		if err := replay(ctx, log, "import", state.Apply, schemas.Apps, schemas.Devices); err != nil {
			bar.clear()
			return fmt.Errorf("read what the log has: %w", err)
		}
		o.Now, o.By, o.Keyring, o.Progress = time.Now(), operator()+":import", s.keyring, bar.step
		o.CheckAPNs, o.CheckFCM = apns.CheckCredentials, fcm.CheckCredentials
		if c.embedded() {
			o.Room = func() error { return roomInLog(c) }
		}
		report, err := do(ctx, log, state)
		bar.clear()
		switch {
		case err != nil && ctx.Err() != nil:
			fmt.Fprintln(t.err, "stopped: run the same command again, and it goes on")
			return err
		case err != nil:
			return err
		}
		return t.printImport(report, f)
	})
}

func (t *terminal) printImport(report *migrate.Report, f importFlags) error {
	if f.json {
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintln(t.out, string(text))
		return nil
	}
	var rows [][]string
	for _, r := range report.Rows {
		app := r.App
		if app == "" {
			app = "-"
		}
		rows = append(rows, []string{app, r.What, string(r.Result), strconv.FormatInt(r.Count, 10), r.Reason})
	}
	if err := printTable(t.out, "APP\tWHAT\tRESULT\tCOUNT\tREASON", rows); err != nil {
		return err
	}
	if report.DryRun {
		fmt.Fprintln(t.out, "dry run: nothing was written")
	}
	return nil
}

// importShare is how much of the embedded log's budget an import may fill, in percent: the rest is for the pushes.
const importShare = 75

// roomInLog refuses to fill the embedded log.
func roomInLog(c *Config) error {
	size, err := folderSize(brokerDir(c))
	if err != nil {
		return fmt.Errorf("measure the log: %w", err)
	}
	if limit := c.Embedded.MaxLog / 100 * importShare; size > limit {
		return fmt.Errorf("the embedded log has %d MiB, and an import fills it to %d MiB at most: what was imported so far is there; raise --embedded-max-log (here and for `campanile up`), "+
			"or use Kafka, and run the import again: it goes on", size>>20, limit>>20)
	}
	return nil
}

func folderSize(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil // deleted since it was listed
		}
		return err
	})
	return size, err
}

// importBar draws the steps of an import; nothing where nobody looks.
type importBar struct {
	t    *terminal
	bar  *progressbar.ProgressBar
	name string
}

func (t *terminal) importBar() *importBar { return &importBar{t: t} }

// step shows how far a step is; a total below zero is not known.
func (b *importBar) step(name string, done, total int64) {
	if !isTerminal(b.t.err) {
		return
	}
	if b.name != name {
		b.clear()
		b.name = name
		b.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(b.t.err), progressbar.OptionSetDescription(name), progressbar.OptionSetWidth(30),
			progressbar.OptionShowBytes(total > 0), progressbar.OptionThrottle(50*time.Millisecond))
	}
	_ = b.bar.Set64(done)
}

func (b *importBar) clear() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}
