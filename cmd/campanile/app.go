package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders/apns"
	"github.com/campanile-push/campanile/senders/fcm"
	"github.com/campanile-push/campanile/vault"
)

func appCommand(t *terminal) *cobra.Command {
	cmd := &cobra.Command{Use: "app", Short: "Create apps, set their credentials, list them"}
	cmd.AddCommand(appCreateCommand(t), appListCommand(t), appCredentialsCommand(t))
	return cmd
}

func appCreateCommand(t *terminal) *cobra.Command {
	e := &pushv1.AppConfigured{}
	var policy string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create an app, or change its settings",
		Long: `Creates an app under the name that clients send as X-AN-APP-NAME, such as commoodlemoodlemobile. For an app that exists, the flags given
replace its settings and the others stay.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := schemas.CheckApp(args[0]); err != nil {
				return fmt.Errorf("%q: %w", args[0], err)
			}
			p, err := parsePolicy(policy)
			if err != nil {
				return err
			}
			e.AccessKeyPolicy = p
			if !(e.ApnsRate >= 0 && e.FcmRate >= 0) {
				return errors.New("--apns-rate and --fcm-rate: want pushes a second, or 0 for no limit")
			}
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				d, err := readDirectory(ctx, log)
				if err != nil {
					return err
				}
				if old := d.entry(args[0]).config; old != nil {
					keepUnchanged(cmd, e, old)
				}
				e.App, e.ConfiguredBy, e.ConfiguredAtUs = args[0], operator(), time.Now().UnixMicro()
				if err := log.Append(ctx, func(out *schemas.Out) { out.AppConfigured(e) }); err != nil {
					return err
				}
				fmt.Fprintf(t.out, "app %s is set; give it credentials with `campanile app credentials %s`, and keys with `campanile key create %s`\n", e.App, e.App, e.App)
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.Title, "title", "", "name for people")
	f.StringVar(&e.Description, "description", "", "what it is")
	f.StringSliceVar(&e.BlockedNetworks, "block", nil, "addresses or CIDR that get 423")
	f.Float64Var(&e.ApnsRate, "apns-rate", 0, "most pushes a second to APNs over all processes; 0: no limit of its own")
	f.Float64Var(&e.FcmRate, "fcm-rate", 0, "most pushes a second to FCM over all processes, within the project's quota; 0: no limit of its own")
	f.StringVar(&policy, "access-keys", "open", "who gets a key from /accesskeys/: open, allow-list, remote-check or manual")
	f.StringSliceVar(&e.AllowedSites, "allow-site", nil, "site URLs of the allow list")
	f.BoolVar(&e.SiteKeysCannotRegister, "site-keys-cannot-register", false, "keys from /accesskeys/ only notify; phones register themselves")
	f.BoolVar(&e.UnprovenSitesMayBroadcast, "unproven-sites-may-broadcast", false, "sites that proved nothing broadcast to their own phones")
	return cmd
}

// keepUnchanged copies from old what no flag set.
func keepUnchanged(cmd *cobra.Command, e, old *pushv1.AppConfigured) {
	keep := func(flag string, copyField func()) {
		if !cmd.Flags().Changed(flag) {
			copyField()
		}
	}
	keep("title", func() { e.Title = old.Title })
	keep("description", func() { e.Description = old.Description })
	keep("block", func() { e.BlockedNetworks = old.BlockedNetworks })
	keep("apns-rate", func() { e.ApnsRate = old.ApnsRate })
	keep("fcm-rate", func() { e.FcmRate = old.FcmRate })
	keep("access-keys", func() { e.AccessKeyPolicy = old.AccessKeyPolicy })
	keep("allow-site", func() { e.AllowedSites = old.AllowedSites })
	keep("site-keys-cannot-register", func() { e.SiteKeysCannotRegister = old.SiteKeysCannotRegister })
	keep("unproven-sites-may-broadcast", func() { e.UnprovenSitesMayBroadcast = old.UnprovenSitesMayBroadcast })
}

var policies = map[string]pushv1.AccessKeyPolicy{
	"open":         pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_OPEN,
	"allow-list":   pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_ALLOW_LIST,
	"remote-check": pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_REMOTE_CHECK,
	"manual":       pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_MANUAL,
}

func parsePolicy(s string) (pushv1.AccessKeyPolicy, error) {
	p, ok := policies[s]
	if !ok {
		return 0, fmt.Errorf("--access-keys %q: want open, allow-list, remote-check or manual", s)
	}
	return p, nil
}

func policyName(p pushv1.AccessKeyPolicy) string {
	for name, value := range policies {
		if value == p {
			return name
		}
	}
	return p.String()
}

func appListCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the apps, with what each can deliver to",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				d, err := readDirectory(ctx, log)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(t.out, 0, 4, 2, ' ', 0)
				fmt.Fprintln(w, "APP\tTITLE\tCREDENTIALS\tKEYS\tACCESS KEYS")
				for _, name := range d.names() {
					e := d.apps[name]
					var transports []string
					for _, tr := range schemas.Transports {
						if e.credentials[tr] != nil {
							transports = append(transports, tr.Word())
						}
					}
					if len(transports) == 0 {
						transports = []string{"none"}
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", name, e.config.Title, strings.Join(transports, ","), len(e.keys), policyName(e.config.AccessKeyPolicy))
				}
				return w.Flush()
			})
		},
	}
}

func appCredentialsCommand(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "credentials",
		Short: "Set an app's credentials; running senders take them at once",
		Long:  "The credentials are sealed under the master key before they enter the log, and no command shows them again.",
	}
	var a pushv1.ApnsCredentials
	var p8, p12 string
	apnsCmd := &cobra.Command{
		Use:   "apns APP",
		Short: "Set the credentials for Apple's push service: a .p8 key, or a .p12 certificate",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (p8 == "") == (p12 == "") {
				return errors.New("give either --p8 (with --team-id and --key-id) or --p12")
			}
			if p8 != "" {
				text, err := os.ReadFile(p8)
				if err != nil {
					return err
				}
				a.P8 = string(text)
			} else {
				var err error
				if a.P12, err = os.ReadFile(p12); err != nil {
					return err
				}
			}
			if err := apns.CheckCredentials(&a); err != nil {
				return err
			}
			plain, err := a.MarshalVT()
			if err != nil {
				return err
			}
			return t.setCredentials(cmd, args[0], schemas.APNS, plain)
		},
	}
	f := apnsCmd.Flags()
	f.StringVar(&a.Topic, "topic", "", "the app's bundle id")
	f.StringVar(&p8, "p8", "", "file of the signing key")
	f.StringVar(&a.TeamId, "team-id", "", "10 characters")
	f.StringVar(&a.KeyId, "key-id", "", "10 characters")
	f.StringVar(&p12, "p12", "", "file of the certificate with its key")
	f.StringVar(&a.P12Password, "p12-password", "", "its password")

	var account string
	fcmCmd := &cobra.Command{
		Use:   "fcm APP",
		Short: "Set the credentials for Firebase Cloud Messaging: a service account's JSON file",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(account)
			if err != nil {
				return fmt.Errorf("--service-account: %w", err)
			}
			c := &pushv1.FcmCredentials{ServiceAccountJson: string(text)}
			if err := fcm.CheckCredentials(c); err != nil {
				return err
			}
			plain, err := c.MarshalVT()
			if err != nil {
				return err
			}
			return t.setCredentials(cmd, args[0], schemas.FCM, plain)
		},
	}
	fcmCmd.Flags().StringVar(&account, "service-account", "", "file of the service account")
	cmd.AddCommand(apnsCmd, fcmCmd)
	return cmd
}

func (t *terminal) setCredentials(cmd *cobra.Command, app string, tr schemas.Transport, plain []byte) error {
	return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, s *secrets) error {
		d, err := readDirectory(ctx, log)
		if err != nil {
			return err
		}
		if _, err := d.find(app); err != nil {
			return err
		}
		if err := appendCredentials(ctx, log, s.keyring, app, tr, plain); err != nil {
			return err
		}
		fmt.Fprintf(t.out, "app %s delivers to %s\n", app, tr.Word())
		return nil
	})
}

func appendCredentials(ctx context.Context, log *eventlog.Log, keyring *vault.Keyring, app string, tr schemas.Transport, plain []byte) error {
	id := schemas.NewID()
	return log.Append(ctx, func(out *schemas.Out) {
		out.CredentialsSet(&pushv1.CredentialsSet{
			App: app, Transport: tr, CredentialsId: id[:], Sealed: keyring.Seal(plain, app, tr.Word()),
			SetAtUs: time.Now().UnixMicro(), SetBy: operator(),
		})
	})
}

// operator is who stands at the keyboard, for the audit trail.
func operator() string {
	if u, err := user.Current(); err == nil {
		return "cli:" + u.Username
	}
	return "cli"
}

// printTable writes rows under a header, in columns.
func printTable(w io.Writer, header string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, header)
	for _, row := range rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}
