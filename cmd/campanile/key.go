package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// The permissions of a key, with AirNotifier's bits.
var permissionBits = []struct {
	name string
	bit  uint32
}{
	{"register", 1},
	{"unregister", 2},
	{"notify", 4},
	{"broadcast", permitBroadcast},
	{"issue-keys", 16},
}

const (
	permitBroadcast = 8
	allPermissions  = 31
)

func parsePermissions(words []string) (uint32, error) {
	var bits uint32
words:
	for _, w := range words {
		switch w {
		case "all":
			bits |= allPermissions
			continue
		case "none":
			continue
		}
		for _, p := range permissionBits {
			if p.name == w {
				bits |= p.bit
				continue words
			}
		}
		return 0, fmt.Errorf("permission %q: want register, unregister, notify, broadcast, issue-keys, all or none", w)
	}
	return bits, nil
}

func permissionWords(bits uint32) string {
	var words []string
	for _, p := range permissionBits {
		if bits&p.bit == p.bit {
			words = append(words, p.name)
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ",")
}

func keyCommand(t *terminal) *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "Create, list, approve and revoke access keys"}
	cmd.AddCommand(keyCreateCommand(t), keyListCommand(t), keyRevokeCommand(t), keyApproveCommand(t))
	return cmd
}

// newKey makes a key: its value, which nothing keeps, and the event that issues it. The value has the 32 hex digits of AirNotifier's
// keys: Moodle's settings form keeps letters, digits, '-' and '_' only.
func newKey(app string, bits uint32) (value string, e *pushv1.AccessKeyIssued) {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw)
	value = hex.EncodeToString(raw)
	hash := sha256.Sum256([]byte(value))
	return value, &pushv1.AccessKeyIssued{
		App: app, KeyId: hex.EncodeToString(hash[:16]), ValueHash: hash[:], Permissions: bits,
		IssuedAtUs: time.Now().UnixMicro(), IssuedBy: operator(),
	}
}

func keyCreateCommand(t *terminal) *cobra.Command {
	var permissions []string
	var description, contact, site string
	cmd := &cobra.Command{
		Use:   "create APP",
		Short: "Create a key and print it, this once",
		Long: `Creates a key and prints it, this once. With --site it is the key of that site, whose claim to its address you vouch for: the phones that it registers join the
site's own channel, it broadcasts to that and to md5(wwwroot), and it reaches no other site's phones. A further key for the same site shares all that. Without
--site it is an operator's, and reaches the whole app.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if site != "" && !cmd.Flags().Changed("permissions") {
				permissions = []string{"register", "unregister", "notify", "broadcast"}
			}
			bits, err := parsePermissions(permissions)
			if err != nil {
				return err
			}
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				d, err := readDirectory(ctx, log)
				if err != nil {
					return err
				}
				known, err := d.find(args[0])
				if err != nil {
					return err
				}
				value, e := newKey(args[0], bits)
				e.Description, e.Contact = description, contact
				if site != "" {
					if e.Claim, err = known.vouched(args[0], site); err != nil {
						return err
					}
				}
				if err := log.Append(ctx, func(out *schemas.Out) { out.AccessKeyIssued(e) }); err != nil {
					return err
				}
				fmt.Fprintln(t.out, value)
				fmt.Fprintf(t.err, "key %s of %s may: %s. Only its hash is kept: note the value now.\n", e.KeyId, e.App, permissionWords(bits))
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&permissions, "permissions", []string{"register", "notify"}, "register, unregister, notify, broadcast, issue-keys; all; none")
	f.StringVar(&site, "site", "", "address of the Moodle site whose key it is, as its wwwroot says")
	f.StringVar(&description, "description", "", "whose key it is")
	f.StringVar(&contact, "contact", "", "whom to ask about it")
	return cmd
}

// vouched is the proven claim of a site for which the operator vouches: the one that there is, or a new one.
func (e *appEntry) vouched(app, site string) (*pushv1.Claim, error) {
	address, ok := schemas.SiteURL(site)
	if !ok {
		return nil, fmt.Errorf("--site %q: want the site's address, such as https://moodle.example.org", site)
	}
	var last *pushv1.AccessKeyIssued
	for _, k := range e.keys {
		theirs, _ := schemas.SiteURL(k.Claim.GetUrl())
		if k.Claim.GetProven() && !k.Pending && theirs == address && (last == nil || k.IssuedAtUs > last.IssuedAtUs) {
			last = k // of several, the one issued last owns the address
		}
	}
	if last != nil {
		return last.Claim, nil
	}
	sum := sha256.Sum256([]byte("campanile vouched claim\x00" + app + "\x00" + address))
	return &pushv1.Claim{Url: strings.TrimSpace(site), Channel: "site-" + hex.EncodeToString(sum[:16]), Proven: true}, nil
}

func keyListCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use:   "list APP",
		Short: "List an app's keys, without their values",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
				d, err := readDirectory(ctx, log)
				if err != nil {
					return err
				}
				e, err := d.find(args[0])
				if err != nil {
					return err
				}
				var rows [][]string
				for _, k := range e.keys {
					state := "active"
					if k.Pending {
						state = "waits for approval"
					}
					site := k.Claim.GetUrl()
					if k.Claim.GetProven() {
						site += " (proven)"
					}
					rows = append(rows, []string{k.KeyId, permissionWords(k.Permissions), state, site, k.Description, time.UnixMicro(k.IssuedAtUs).UTC().Format(time.RFC3339)})
				}
				slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[len(a)-1]+a[0], b[len(b)-1]+b[0]) })
				return printTable(t.out, "KEY ID\tMAY\tSTATE\tSITE\tDESCRIPTION\tISSUED", rows)
			})
		},
	}
}

// findKey is the key of an app with that id, or with an id that starts so.
func (e *appEntry) findKey(app, id string) (*pushv1.AccessKeyIssued, error) {
	var found []*pushv1.AccessKeyIssued
	for _, k := range e.keys {
		if id != "" && strings.HasPrefix(k.KeyId, id) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("app %s has no key whose id starts with %q: `campanile key list %s`", app, id, app)
	}
	return nil, fmt.Errorf("%d keys of %s have ids that start with %q: give more of it", len(found), app, id)
}

func (t *terminal) onKey(cmd *cobra.Command, app, id string, do func(ctx context.Context, log *eventlog.Log, e *appEntry, k *pushv1.AccessKeyIssued) error) error {
	return t.withLog(cmd, func(ctx context.Context, log *eventlog.Log, _ *secrets) error {
		d, err := readDirectory(ctx, log)
		if err != nil {
			return err
		}
		e, err := d.find(app)
		if err != nil {
			return err
		}
		k, err := e.findKey(app, id)
		if err != nil {
			return err
		}
		return do(ctx, log, e, k)
	})
}

func keyRevokeCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke APP KEY_ID",
		Short: "Revoke a key; every ingest refuses it at once",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.onKey(cmd, args[0], args[1], func(ctx context.Context, log *eventlog.Log, _ *appEntry, k *pushv1.AccessKeyIssued) error {
				e := &pushv1.AccessKeyRevoked{App: k.App, KeyId: k.KeyId, RevokedAtUs: time.Now().UnixMicro(), RevokedBy: operator()}
				if err := log.Append(ctx, func(out *schemas.Out) { out.AccessKeyRevoked(e) }); err != nil {
					return err
				}
				fmt.Fprintf(t.out, "key %s of %s is revoked\n", k.KeyId, k.App)
				return nil
			})
		},
	}
}

// approve makes a claim proven: the key works, owns the site's channel, and may broadcast to it.
func approve(k *pushv1.AccessKeyIssued) {
	k.Pending, k.Claim.Proven = false, true
	k.Permissions |= permitBroadcast
	k.IssuedBy = operator()
}

func keyApproveCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use:   "approve APP KEY_ID",
		Short: "Approve a site's claim: its key works, owns the site's channel, and may broadcast to it",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.onKey(cmd, args[0], args[1], func(ctx context.Context, log *eventlog.Log, e *appEntry, k *pushv1.AccessKeyIssued) error {
				if k.Claim == nil {
					return errors.New("this is an operator's key: it claims no site, and needs no approval")
				}
				for _, other := range e.keys {
					if other.Claim.GetProven() && other.Claim.GetUrl() == k.Claim.Url && other.Claim.GetChannel() != k.Claim.Channel {
						return fmt.Errorf("%s is proven by key %s already, for another siteid, and one claim owns a site: revoke that key first if it is not the site's", k.Claim.Url, other.KeyId)
					}
				}
				approve(k)
				if err := log.Append(ctx, func(out *schemas.Out) { out.AccessKeyIssued(k) }); err != nil {
					return err
				}
				fmt.Fprintf(t.out, "key %s of %s is proven for %s\n", k.KeyId, k.App, k.Claim.Url)
				return nil
			})
		},
	}
}
