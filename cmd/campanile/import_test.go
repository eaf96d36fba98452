package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
	"github.com/campanile-push/campanile/migrate"
	"github.com/campanile-push/campanile/migrate/migratetest"
)

// exported makes an AirNotifier's export whose credentials are those of the world's simulator.
func (w *world) exported(t *testing.T, e migratetest.Export) (dir string, made *migratetest.Made) {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	e.FCM, e.APNs = read(w.sim.ServiceAccount), read(w.sim.P8)
	e.TeamID, e.KeyID, e.Topic = w.sim.TeamID, w.sim.KeyID, w.sim.Topic
	dir = filepath.Join(w.dir, "export")
	made, err := migratetest.Write(dir, e)
	if err != nil {
		t.Fatal(err)
	}
	return dir, made
}

func (w *world) imported(t *testing.T, args ...string) *migrate.Report {
	t.Helper()
	report := &migrate.Report{}
	if err := json.Unmarshal([]byte(w.run(t, append(append([]string{"import"}, args...), "--json")...)), report); err != nil {
		t.Fatal(err)
	}
	return report
}

// TestAnAirNotifierMovesOver imports an export, before and while Campanile serves, and goes on as the sites would: with the keys that they
// have.
func TestAnAirNotifierMovesOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, made := w.exported(t, migratetest.Export{Tokens: 3000, Sites: 2})

	if dry := w.imported(t, "airnotifier", dir, "--dry-run"); dry.Count("tokens", migrate.Imported) != made.Devices {
		t.Errorf("a dry run counts %d devices of %d", dry.Count("tokens", migrate.Imported), made.Devices)
	}
	if first := w.imported(t, "airnotifier", dir); first.Count("tokens", migrate.Imported) != made.Devices {
		t.Errorf("imported %d devices of %d", first.Count("tokens", migrate.Imported), made.Devices)
	}
	u := w.up(t)
	if again := w.imported(t, "airnotifier", dir); again.Count("tokens", migrate.Imported)+again.Count("keys", migrate.Imported) != 0 {
		t.Errorf("a second run, beside a running campanile, imports: %+v", again.Rows)
	}

	site := u.moodle("demo", made.Keys[0])
	phones := []bench.Phone{
		{Token: made.Samples["ios"][0], Platform: "ios"},
		{Token: made.Samples["android-fcm"][0], Platform: "Android-fcm"},
		{Token: made.Samples["fcm"][0], Platform: "iOS-fcm"},
	}
	for _, p := range phones {
		if a, err := site.Push(t.Context(), p.Token, p.Platform, "moved"); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("a push to %s: %d %s, %v", p.Platform, a.Status, a.Body, err)
		}
	}
	eventually(t, time.Minute, "the providers have the pushes", func() bool {
		for _, n := range w.pushes(t, phones...) {
			if n != 1 {
				return false
			}
		}
		return true
	})
	if a, err := site.Do(t.Context(), http.MethodPost, "/tokens/testtoken", "application/x-www-form-urlencoded", nil); err != nil || a.Field("error") != "Invalid token" {
		t.Errorf("Moodle's check of a key that moved over: %d %s, %v", a.Status, a.Body, err)
	}
	if a, err := site.Push(t.Context(), "never:seen", "Android-fcm", "created"); err != nil || a.Status != http.StatusAccepted {
		t.Errorf("a push to a phone that the export did not have: %d %s, %v", a.Status, a.Body, err)
	}
	if _, err := site.Broadcast(t.Context(), "", "to all"); err == nil || !strings.Contains(err.Error(), "No permission") {
		t.Errorf("a site broadcasts before it was approved: %v", err)
	}
	if _, err := site.Broadcast(t.Context(), "default", "to all"); err == nil {
		t.Error("a site reaches the channel that all share")
	}
}

// TestAMoodleSiteBroadcastsToItsOwnDevices imports a site's table of devices into the site's channel.
func TestAMoodleSiteBroadcastsToItsOwnDevices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, made := w.exported(t, migratetest.Export{Tokens: 3000, Sites: 2})
	w.imported(t, "airnotifier", dir)
	hash := sha256.Sum256([]byte(made.Keys[0]))
	id := hex.EncodeToString(hash[:16])

	mine, others := made.Samples["android-fcm"][:3], made.Samples["android-fcm"][3:6]
	table := "id,appid,platform,pushid\n1,com.other.app,Android-fcm,other:token\n"
	for _, token := range append([]string{"new:phone"}, mine...) {
		table += "2,demo,Android-fcm," + token + "\n"
	}
	file := filepath.Join(w.dir, "devices.csv")
	writeFile(t, file, table)
	report := w.imported(t, "moodle", file, "--app", "demo", "--key", id)
	if n, m := report.Count("tokens", migrate.Imported), report.Count("subscriptions", migrate.Imported); n != 1 || m != 4 {
		t.Errorf("want 1 new device and 4 subscriptions, got %d and %d", n, m)
	}
	w.run(t, "key", "approve", "demo", id)

	u := w.up(t)
	if _, err := u.moodle("demo", made.Keys[0]).Broadcast(t.Context(), "", "to the site"); err != nil {
		t.Fatal(err)
	}
	w.settled(t, time.Minute)
	var phones []bench.Phone
	for _, token := range append(append([]string{"new:phone"}, mine...), others...) {
		phones = append(phones, bench.Phone{Token: token, Platform: "Android-fcm"})
	}
	for i, n := range w.pushes(t, phones...) {
		if want := i < 4; (n == 1) != want {
			t.Errorf("phone %d got %d pushes", i, n)
		}
	}
}

// TestAKilledImportGoesOn kills the import of an export that takes a while, and runs it again.
func TestAKilledImportGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, made := w.exported(t, migratetest.Export{Tokens: 60_000, Sites: 5})
	var imported, there int64
	for kills := 0; ; kills++ {
		r := start(t, w.env(), "import", "airnotifier", dir, "--json")
		if kills < 3 {
			eventually(t, time.Minute, "the log grows", func() bool {
				size, err := folderSize(filepath.Join(w.data(), "log"))
				select {
				case <-r.ended:
					return true
				default:
					return err == nil && size > int64(kills+1)*1<<20
				}
			})
			r.kill()
			continue
		}
		<-r.ended
		report := &migrate.Report{}
		if i := strings.Index(r.output.String(), "{"); i < 0 || json.NewDecoder(strings.NewReader(r.output.String()[i:])).Decode(report) != nil {
			t.Fatalf("no report:\n%s", r.output.String())
		}
		imported, there = report.Count("tokens", migrate.Imported), report.Count("tokens", migrate.Unchanged)
		break
	}
	if imported+there != made.Devices {
		t.Errorf("%d imported and %d there, of %d", imported, there, made.Devices)
	}
	last := w.imported(t, "airnotifier", dir)
	if n := last.Count("tokens", migrate.Unchanged); n != made.Devices {
		t.Errorf("in the end %d of %d are there", n, made.Devices)
	}
	if n := last.Count("subscriptions", migrate.Unchanged); n != made.Subscriptions {
		t.Errorf("in the end %d of %d subscriptions are there", n, made.Subscriptions)
	}
}

func TestAnImportDoesNotFillTheEmbeddedLog(t *testing.T) {
	t.Parallel()
	c := &Config{Data: t.TempDir()}
	c.Embedded.MaxLog = 1000
	if err := os.MkdirAll(brokerDir(c), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := roomInLog(c); err != nil {
		t.Errorf("an empty log has no room: %v", err)
	}
	writeFile(t, filepath.Join(brokerDir(c), "0.log"), strings.Repeat("x", 751))
	if err := roomInLog(c); err == nil || !strings.Contains(err.Error(), "--embedded-max-log") {
		t.Errorf("want what to do, got %v", err)
	}
}

// TestATrialInTheShadowDeliversNothing puts the proxy in front of a stand-in of an AirNotifier, and a trial without credentials behind it.
func TestATrialInTheShadowDeliversNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir, made := w.exported(t, migratetest.Export{Tokens: 1000, Sites: 1})
	w.imported(t, "airnotifier", dir, "--no-credentials")
	u := w.up(t)
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v2/push/":
			w.WriteHeader(http.StatusAccepted)
		default: // as 3.0 does, also for testtoken
			_, _ = w.Write([]byte(`{"status": "ok"}`))
		}
	}))
	defer old.Close()
	proxy := start(t, w.env(), "shadow", "--upstream", old.URL, "--to", u.info.API, "--listen", "127.0.0.1:0", "--json")
	address := regexp.MustCompile(`shadow=(http://\S+)`)
	eventually(t, 30*time.Second, "the proxy is ready", func() bool { return address.MatchString(proxy.output.String()) })
	site := bench.Moodle{BaseURL: address.FindStringSubmatch(proxy.output.String())[1], App: "demo", Key: made.Keys[0], Client: bench.NewClient(4)}
	phone := bench.Phone{Token: made.Samples["android-fcm"][0], Platform: "Android-fcm"}

	if a, err := site.Push(t.Context(), phone.Token, phone.Platform, "both"); err != nil || a.Status != http.StatusAccepted {
		t.Fatalf("push: %d %s, %v", a.Status, a.Body, err)
	}
	if a, err := site.Do(t.Context(), http.MethodPost, "/tokens/testtoken", "application/x-www-form-urlencoded", nil); err != nil || a.Field("status") != "ok" {
		t.Fatalf("testtoken: %d %s, %v", a.Status, a.Body, err)
	}
	eventually(t, 30*time.Second, "the difference is logged", func() bool { return strings.Contains(proxy.output.String(), "answers differ") })
	eventually(t, 30*time.Second, "the push is in the trial's log", func() bool { return w.reconcile(t).Accepted == 1 })
	proxy.stop(t)
	var report struct {
		migrate.ShadowCount
		Differences []migrate.CountedDifference
	}
	text := proxy.output.String()
	if err := json.Unmarshal([]byte(text[strings.Index(text, "{\n"):]), &report); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if report.Same != 1 || report.Different != 1 || len(report.Differences) != 1 || report.Differences[0].Campanile != "400 {error: Invalid token}" {
		t.Errorf("%+v", report)
	}
	if n := w.pushes(t, phone); n[0] != 0 {
		t.Error("the trial delivered")
	}
}

// TestDocumentedCommandsAreThere parses every command line of the guides, flags and all.
func TestDocumentedCommandsAreThere(t *testing.T) {
	t.Parallel()
	lines := 0
	for _, guide := range []string{"airnotifier.md", "moodle.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", guide))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			at := strings.Index(line, "campanile ")
			if at != 0 && !strings.Contains(line[:max(at, 0)], "$(") {
				continue
			}
			lines++
			root := newRoot(&terminal{})
			cmd, rest, err := root.Find(words(line[at:])[1:])
			if err == nil && !cmd.Runnable() {
				err = errors.New("is no command, but a group of them")
			}
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err == nil {
				err = cmd.ValidateRequiredFlags()
			}
			if err != nil {
				t.Errorf("%s: %s: %v", guide, strings.TrimSpace(line), err)
			}
		}
	}
	if lines < 10 {
		t.Errorf("only %d command lines were found: the guides changed their form", lines)
	}
}

// words splits a line as a shell does, as far as the guides need it.
func words(line string) (all []string) {
	for i, part := range strings.Split(strings.TrimSpace(line), `"`) {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}
