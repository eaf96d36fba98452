package migrate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/migrate"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const campus = "orgexamplecampus" // what Moodle makes of org.example.campus

func moodleLog(t *testing.T) *memoryLog {
	t.Helper()
	log := newLog()
	if err := log.Append(t.Context(), func(out *schemas.Out) {
		out.AppConfigured(&pushv1.AppConfigured{App: campus})
		out.AccessKeyIssued(&pushv1.AccessKeyIssued{App: campus, KeyId: "site", Claim: &pushv1.Claim{Url: "https://a.example.org", Channel: "site-a"}})
		out.AccessKeyIssued(&pushv1.AccessKeyIssued{App: campus, KeyId: "operator"})
		out.AccessKeyIssued(&pushv1.AccessKeyIssued{App: campus, KeyId: "second"})
		out.AccessKeyIssued(&pushv1.AccessKeyIssued{App: campus, KeyId: "gone"})
		out.AccessKeyRevoked(&pushv1.AccessKeyRevoked{App: campus, KeyId: "gone"})
	}); err != nil {
		t.Fatal(err)
	}
	return log
}

func moodleOptions(t *testing.T) migrate.MoodleOptions {
	t.Helper()
	o := migrate.MoodleOptions{Options: options(t)}
	o.App = campus
	return o
}

func table(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "devices.csv")
	write(t, path, text)
	return path
}

var apnsToken = strings.Repeat("ab", 32)

func TestMoodlesDevicesAreImportedInEveryForm(t *testing.T) {
	t.Parallel()
	rows := [][]string{
		{"id", "appid", "platform", "pushid", "enable"},
		{"1", "org.example.campus", "Android-fcm", "a:1", "1"},
		{"2", "org.example.campus", "iOS-fcm", "b:2", "NULL"},
		{"3", "org.example.campus", "iOS", apnsToken, "1"},
		{"4", "org.example.campus", "", "c:" + strings.Repeat("3", 100), ""},
		{"5", "org.example.campus", "Android-fcm", "off:5", "0"},
		{"6", "com.other.app", "Android-fcm", "d:6", "1"},
		{"7", "org.example.campus", "Android-fcm", "", "1"},
		{"8", "org.example.campus", "Android-fcm", "a:1", "1"},
		{"9", "org.example.campus", "Android"},
	}
	for name, c := range map[string]struct{ before, between, quote string }{
		"commas": {"", ",", ""}, "quoted": {"", ",", `"`}, "semicolons": {"\xef\xbb\xbf", ";", ""}, "mysql --batch": {"", "\t", ""},
	} {
		var b strings.Builder
		b.WriteString(c.before)
		for _, row := range rows {
			b.WriteString(c.quote + strings.Join(row, c.quote+c.between+c.quote) + c.quote + "\n")
		}
		log := moodleLog(t)
		report, err := migrate.Moodle(t.Context(), log, log.state(t), []string{table(t, b.String())}, moodleOptions(t))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := map[string]string{}
		for _, r := range log.records {
			event, err := r.Event()
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := event.(*pushv1.TokenRegistered); ok {
				got[e.Transport.Word()+" "+e.Token[:3]] = e.Platform
			}
		}
		want := map[string]string{"fcm a:1": "Android-fcm", "fcm b:2": "iOS-fcm", "apns aba": "iOS", "fcm c:3": "fcm"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		for result, n := range map[migrate.Result]int64{migrate.Imported: 4, migrate.LeftOut: 2, migrate.Rejected: 2, migrate.Folded: 1} {
			if report.Count("tokens", result) != n {
				t.Errorf("%s: want %d %s: %+v", name, n, result, report.Rows)
			}
		}
	}
}

func TestASitesDevicesJoinItsChannel(t *testing.T) {
	t.Parallel()
	path := table(t, "appid,platform,pushid\norg.example.campus,Android-fcm,a:1\n")
	for _, c := range []struct{ key, channel, want, err string }{
		{"", "", "default", ""},
		{"site", "", "site-a", ""},
		{"operator", "", "default", ""},
		{"operator", "course", "course", ""},
		{"site", "course", "", "channel of its own"},
		{"sit", "", "site-a", ""},
		{"gone", "", "", "no key in force"},
		{"s", "", "", "several keys"},
		{"", "a\x01", "", "channel"},
	} {
		log := moodleLog(t)
		before := len(log.records)
		o := moodleOptions(t)
		o.KeyID, o.Channel = c.key, c.channel
		_, err := migrate.Moodle(t.Context(), log, log.state(t), []string{path}, o)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: got %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		channel := ""
		for _, r := range log.records[before:] {
			if event, err := r.Event(); err == nil {
				if e, ok := event.(*pushv1.ChannelSubscribed); ok {
					channel = e.Channel
				}
			}
		}
		if channel != c.want {
			t.Errorf("%+v: joined %q", c, channel)
		}
	}
}

func TestMistakesWithTablesAreTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"no names":       {"1,2,3\n", "no column"},
		"empty":          {"", "no line of column names"},
		"of another app": {"appid,platform,pushid\ncom.other.app,Android-fcm,a:1\n", "com.other.app"},
		"no pushid":      {"appid,platform\n", "pushid"},
	} {
		log := moodleLog(t)
		before := len(log.records)
		_, err := migrate.Moodle(t.Context(), log, log.state(t), []string{table(t, c.text)}, moodleOptions(t))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q in the error, got %v", name, c.want, err)
		}
		if len(log.records) != before {
			t.Errorf("%s: something was appended", name)
		}
	}
	o := moodleOptions(t)
	o.App = "nowhere"
	if _, err := migrate.Moodle(t.Context(), newLog(), migrate.NewState(), nil, o); err == nil || !strings.Contains(err.Error(), "campanile app create") {
		t.Errorf("an unknown app: %v", err)
	}
}

func FuzzMoodle(f *testing.F) {
	f.Add([]byte("appid,platform,pushid\norg.example.campus,Android-fcm,a:1\n"))
	f.Add([]byte("\xef\xbb\xbf\"appid\";\"platform\";\"pushid\"\n\"x\";\"\"y\";NULL\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "devices.csv")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		log := moodleLog(t)
		if _, err := migrate.Moodle(t.Context(), log, log.state(t), []string{path}, moodleOptions(t)); err != nil {
			return
		}
		for _, r := range log.records {
			event, err := r.Event()
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := event.(*pushv1.TokenRegistered); ok && schemas.CheckToken(e.Token) != nil {
				t.Fatalf("registered %q", e.Token)
			}
		}
	})
}
