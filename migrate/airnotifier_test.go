package migrate_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/migrate"
	"github.com/campanile-push/campanile/migrate/migratetest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func forms() map[string]migratetest.Export {
	return map[string]migratetest.Export{
		"lines":            {},
		"array":            {Array: true},
		"canonical":        {Canonical: true},
		"gzip":             {Gzip: true},
		"array, all of it": {Array: true, Canonical: true, Gzip: true},
	}
}

func export(t *testing.T, e migratetest.Export) (dir string, made *migratetest.Made) {
	t.Helper()
	dir = t.TempDir()
	made, err := migratetest.Write(dir, e)
	if err != nil {
		t.Fatal(err)
	}
	return dir, made
}

func TestEveryFormOfAnExportIsImportedWhole(t *testing.T) {
	t.Parallel()
	for name, e := range forms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e.Tokens, e.Sites, e.FCM, e.APNs = 5000, 3, "{}", "pem"
			e.TeamID, e.KeyID, e.Topic = "DEF1234567", "ABC1234567", "org.example.campus"
			dir, made := export(t, e)
			log := newLog()
			report := run(t, log, options(t), dir)
			c := log.contents(t)

			if want, got := made.Devices, int64(len(c.devices)); want != got {
				t.Errorf("want %d devices, got %d", want, got)
			}
			subscriptions := int64(0)
			for d, channels := range c.channels {
				subscriptions += int64(len(channels))
				if c.devices[d] == nil {
					t.Errorf("a device has a channel, and no registration: %q", d.Token)
				}
			}
			if subscriptions != made.Subscriptions {
				t.Errorf("want %d subscriptions, got %d", made.Subscriptions, subscriptions)
			}
			for platform, tokens := range made.Samples {
				for _, token := range tokens {
					d := schemas.Device{App: "demo", Transport: schemas.FCM, Token: token}
					if platform == "ios" {
						d.Transport = schemas.APNS
					}
					if got := c.devices[d].GetPlatform(); got != platform {
						t.Errorf("want %q, got %q for %q", platform, got, token)
					}
				}
			}
			checkAccounts(t, report, made)
			if len(c.keys) != 5 || len(c.apps) != 1 || len(c.credentials) != 2 {
				t.Errorf("%d keys, %d apps, %d credentials", len(c.keys), len(c.apps), len(c.credentials))
			}
			if diff := cmp.Diff([]string{"10.9.8.0/24", "2001:db8::1"}, c.apps["demo"].BlockedNetworks); diff != "" {
				t.Errorf("block list (-want +got):\n%s", diff)
			}
		})
	}
}

// checkAccounts holds a report's tokens to what was made: each record counts once.
func checkAccounts(t *testing.T, report *migrate.Report, made *migratetest.Made) {
	t.Helper()
	got := map[string]int64{}
	for _, row := range report.Rows {
		if row.What == "tokens" {
			got[string(row.Result)] += row.Count
			got[row.Reason] += row.Count
		}
	}
	n := made.Counts
	rejected := n[migratetest.NoToken] + n[migratetest.NoText] + n[migratetest.Unusable] + n[migratetest.Short] + n[migratetest.NoHex] +
		n[migratetest.GCM] + n[migratetest.Windows] + n[migratetest.Junk] + n[migratetest.OtherApp] + n[migratetest.Malformed]
	for _, c := range []struct {
		row  string
		want int64
	}{
		{string(migrate.Imported), n[migratetest.Good]},
		{string(migrate.Folded), n[migratetest.Folded]},
		{string(migrate.Rejected), rejected},
		{string(migrate.Noted), n[migratetest.Channel]},
		{string(migrate.Unchanged), 0},
		{"no token", n[migratetest.NoToken]},
		{"ios, shorter than 64 characters", n[migratetest.Short]},
		{"ios, 64 characters that are not hex", n[migratetest.NoHex]},
		{"names another app", n[migratetest.OtherApp]},
		{"malformed document", n[migratetest.Malformed]},
		{"unknown platform", n[migratetest.Junk]},
	} {
		if got[c.row] != c.want {
			t.Errorf("%s: want %d, got %d", c.row, c.want, got[c.row])
		}
	}
}

func TestASecondRunChangesNothing(t *testing.T) {
	t.Parallel()
	dir, made := export(t, migratetest.Export{Tokens: 3000, Sites: 2, FCM: "{}"})
	log := newLog()
	run(t, log, options(t), dir)
	before := len(log.records)
	report := run(t, log, options(t), dir)
	if len(log.records) != before {
		t.Fatalf("the second run appended %d records", len(log.records)-before)
	}
	if want, got := made.Counts[migratetest.Good], report.Count("tokens", migrate.Unchanged); want != got {
		t.Errorf("want %d unchanged, got %d", want, got)
	}
	for _, row := range report.Rows {
		if row.Result == migrate.Imported {
			t.Errorf("imported again: %+v", row)
		}
	}
}

func TestARunCutShortGoesOnInTheNext(t *testing.T) {
	t.Parallel()
	dir, _ := export(t, migratetest.Export{Tokens: 9000, Sites: 2, FCM: "{}"})
	whole := newLog()
	run(t, whole, options(t), dir)
	want := whole.contents(t)
	for _, room := range []int{0, 3, 500, 16400, len(whole.records) - 1} {
		log := newLog()
		log.room = room
		if _, err := migrate.AirNotifier(t.Context(), log, log.state(t), find(t, dir), options(t)); !errors.Is(err, errFull) {
			t.Fatalf("after %d records: want the log's error, got %v", room, err)
		}
		log.room = -1
		run(t, log, options(t), dir)
		got := log.contents(t)
		if len(want.devices) != len(got.devices) || len(want.keys) != len(got.keys) || len(want.credentials) != len(got.credentials) {
			t.Errorf("after %d records: %d devices, %d keys", room, len(got.devices), len(got.keys))
		}
		if !reflect.DeepEqual(want.channels, got.channels) {
			t.Errorf("after %d records, the channels differ", room)
		}
	}
}

func TestADryRunSaysTheSameAndAppendsNothing(t *testing.T) {
	t.Parallel()
	dir, _ := export(t, migratetest.Export{Tokens: 3000, Sites: 2, FCM: "{}"})
	log := newLog()
	o := options(t)
	o.DryRun = true
	dry := run(t, log, o, dir)
	if len(log.records) != 0 {
		t.Fatalf("a dry run appended %d records", len(log.records))
	}
	o.DryRun = false
	if diff := cmp.Diff(run(t, log, o, dir).Rows, dry.Rows); diff != "" {
		t.Errorf("(-real +dry):\n%s", diff)
	}
}

func TestWhatCampanileDecidedSinceStays(t *testing.T) {
	t.Parallel()
	dir, made := export(t, migratetest.Export{Tokens: 3000, Sites: 3, FCM: "{}"})
	log := newLog()
	run(t, log, options(t), dir)

	gone := schemas.Device{App: "demo", Transport: schemas.FCM, Token: made.Samples["android-fcm"][0]}
	left := schemas.Device{App: "demo", Transport: schemas.FCM, Token: made.Samples["android-fcm"][1]}
	id := sha256.Sum256([]byte(made.Keys[0]))
	revoked := hex.EncodeToString(id[:16])
	if err := log.Append(t.Context(), func(out *schemas.Out) {
		out.TokenUnregistered(&pushv1.TokenUnregistered{App: gone.App, Transport: gone.Transport, Token: gone.Token})
		out.ChannelUnsubscribed(&pushv1.ChannelUnsubscribed{App: left.App, Transport: left.Transport, Token: left.Token, Channel: "default"})
		out.AccessKeyRevoked(&pushv1.AccessKeyRevoked{App: "demo", KeyId: revoked})
		out.AppConfigured(&pushv1.AppConfigured{App: "demo", Title: "renamed since"})
	}); err != nil {
		t.Fatal(err)
	}
	before := len(log.records)
	run(t, log, options(t), dir)
	if n := len(log.records) - before; n != 0 {
		t.Errorf("the import says %d things against what was decided since", n)
	}
}

func TestADeadTokenIsNotBroughtBack(t *testing.T) {
	t.Parallel()
	dir, made := export(t, migratetest.Export{Tokens: 100})
	log := newLog()
	dead := made.Samples["fcm"][0]
	if err := log.Append(t.Context(), func(out *schemas.Out) {
		out.TokenInvalidated(&pushv1.TokenInvalidated{App: "demo", Transport: schemas.FCM, Token: dead, AsOfUs: 1})
	}); err != nil {
		t.Fatal(err)
	}
	run(t, log, options(t), dir)
	for _, r := range log.records[1:] {
		if event, err := r.Event(); err == nil {
			if e, ok := event.(*pushv1.TokenRegistered); ok && e.Token == dead {
				t.Error("registered again")
			}
		}
	}
}

func TestKeysKeepTheirValuesAndSitesShareNothing(t *testing.T) {
	t.Parallel()
	dir, made := export(t, migratetest.Export{Sites: 3})
	for _, c := range []struct {
		name              string
		unbound, prove    bool
		claims, permitted int // site keys with a claim; claims that are proven
	}{
		{"as they come", false, false, 3, 0},
		{"unbound", true, false, 0, 0},
		{"proven", false, true, 3, 3},
	} {
		log := newLog()
		o := options(t)
		o.UnboundKeys, o.ProveSites = c.unbound, c.prove
		run(t, log, o, dir)
		keys := log.contents(t).keys
		channels := map[string]bool{}
		proven := 0
		for _, value := range made.Keys {
			hash := sha256.Sum256([]byte(value))
			e := keys[hex.EncodeToString(hash[:16])]
			if e == nil || string(e.ValueHash) != string(hash[:]) || e.Permissions != 15 {
				t.Fatalf("%s: a key is not there as it was: %v", c.name, e)
			}
			if e.Claim != nil {
				channels[e.Claim.Channel] = true
			}
			if e.Claim.GetProven() {
				proven++
			}
		}
		if len(channels) != c.claims || proven != c.permitted {
			t.Errorf("%s: want %d claims and %d proven, got %d and %d", c.name, c.claims, c.permitted, len(channels), proven)
		}
	}
}

func TestASiteThatTwoKeysNameIsProvenToNeither(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "demo.keys.json"), `
{"key":"first","permission":15,"description":"https://campus.example.org"}
{"key":"second","permission":15,"description":"https://Campus.example.org/"}
{"key":"third","permission":15,"description":"https://other.example.org"}`)
	log := newLog()
	o := options(t)
	o.App, o.ProveSites = "demo", true
	run(t, log, o, dir)
	for _, e := range log.contents(t).keys {
		if want := e.Claim.Url == "https://other.example.org"; e.Claim.Proven != want {
			t.Errorf("%s: proven is %v", e.Claim.Url, e.Claim.Proven)
		}
	}
}

func TestNoSecretStandsInTheLogOrTheReport(t *testing.T) {
	t.Parallel()
	const secret = "-----BEGIN PRIVATE KEY-----very secret"
	dir, made := export(t, migratetest.Export{Tokens: 50, Sites: 2, FCM: `{"private_key":"` + secret + `"}`, APNs: secret, TeamID: "t", KeyID: "k", Topic: "b"})
	log := newLog()
	report := run(t, log, options(t), dir)
	for _, r := range log.records {
		for _, s := range append([]string{secret}, made.Keys...) {
			if bytes.Contains(r.Value, []byte(s)) {
				t.Fatalf("a secret stands in %s", r.Topic)
			}
		}
	}
	if text := fmt.Sprintf("%+v", report.Rows); strings.Contains(text, secret) || strings.Contains(text, made.Keys[0]) {
		t.Error("a secret stands in the report")
	}
}

func TestFilesAreKnownByTheirNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{
		"applications.json", "airnotifier.applications.json.gz", "app_demo/tokens.jsonl", "app_demo.tokens.json", "app_demo_keys.json",
		"app_demo/logs.json", "app_demo/users.json", "managers.json", "app_demo/tokens.bson", "tokens.metadata.json", "README", ".hidden/tokens.json",
	} {
		write(t, filepath.Join(dir, name), "")
	}
	files, skipped, err := migrate.Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	type found struct {
		Name, Database string
		Collection     migrate.Collection
	}
	var got []found
	for _, f := range files {
		name, err := filepath.Rel(dir, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if f.Database == filepath.Base(dir) {
			f.Database = "." // the folder that was named
		}
		got = append(got, found{name, f.Database, f.Collection})
	}
	want := []found{
		{"airnotifier.applications.json.gz", "airnotifier", migrate.Applications},
		{"app_demo.tokens.json", "app_demo", migrate.Tokens},
		{"app_demo/tokens.jsonl", "app_demo", migrate.Tokens},
		{"app_demo_keys.json", "app_demo", migrate.Keys},
		{"applications.json", ".", migrate.Applications},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n := 0
	for _, count := range skipped {
		n += count
	}
	if n != 6 {
		t.Errorf("want 6 files left out, got %v", skipped)
	}
}

func TestFilesOfNoKnownAppAreRefusedOrAskTheirRecords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "keys.json"), `{"key":"a"}`)
	if _, err := migrate.AirNotifier(t.Context(), newLog(), migrate.NewState(), find(t, dir), options(t)); err == nil {
		t.Error("keys of no app were taken")
	}
	log := newLog()
	dir = t.TempDir()
	write(t, filepath.Join(dir, "applications.json"), `{"shortname":"demo"}`)
	write(t, filepath.Join(dir, "tokens.json"), `
{"device":"fcm","token":"a:b","appname":"demo"}
{"device":"fcm","token":"c:d","appname":"stranger"}
{"device":"fcm","token":"e:f"}`)
	report := run(t, log, options(t), dir)
	if got := report.Count("tokens", migrate.Imported); got != 1 {
		t.Errorf("want the token of the known app alone, got %d: %+v", got, report.Rows)
	}
}

func TestRefusedCredentialsAreNotSet(t *testing.T) {
	t.Parallel()
	dir, _ := export(t, migratetest.Export{FCM: "{}", APNs: "pem", TeamID: "t", KeyID: "k", Topic: "b"})
	log := newLog()
	o := options(t)
	o.CheckAPNs = func(*pushv1.ApnsCredentials) error { return errors.New("no key") }
	report := run(t, log, o, dir)
	c := log.contents(t).credentials
	if len(c) != 1 || c["demo/fcm"] == nil {
		t.Errorf("want FCM's alone, got %v", c)
	}
	plain, err := o.Keyring.Open(c["demo/fcm"].GetSealed(), "demo", "fcm")
	if err != nil {
		t.Fatal(err)
	}
	var opened pushv1.FcmCredentials
	if err := opened.UnmarshalVT(plain); err != nil || opened.ServiceAccountJson != "{}" {
		t.Errorf("sealed: %v, %v", &opened, err)
	}
	if report.Count("credentials", migrate.Rejected) != 1 {
		t.Errorf("%+v", report.Rows)
	}
}

func TestATrialHasNoCredentials(t *testing.T) {
	t.Parallel()
	dir, _ := export(t, migratetest.Export{FCM: "{}"})
	log := newLog()
	o := options(t)
	o.NoCredentials = true
	if report := run(t, log, o, dir); len(log.contents(t).credentials) != 0 || report.Count("credentials", migrate.LeftOut) != 1 {
		t.Errorf("%+v", report.Rows)
	}
}

func TestAnImportStopsWhereThereIsNoRoom(t *testing.T) {
	t.Parallel()
	dir, _ := export(t, migratetest.Export{Tokens: 20000})
	o := options(t)
	noRoom := errors.New("no room")
	asked := 0
	o.Room = func() error {
		if asked++; asked > 2 {
			return noRoom
		}
		return nil
	}
	if _, err := migrate.AirNotifier(t.Context(), newLog(), migrate.NewState(), find(t, dir), o); !errors.Is(err, noRoom) {
		t.Errorf("want the room's error, got %v", err)
	}
}

func TestWhatIsNoExportIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"junk": "this is\nno export\n", "cut gzip": "\x1f\x8b\x08\x00"} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "demo.tokens.json"), text)
		o := options(t)
		o.App = "demo"
		if _, err := migrate.AirNotifier(t.Context(), newLog(), migrate.NewState(), find(t, dir), o); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
