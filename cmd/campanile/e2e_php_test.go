package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/campanile-push/campanile/ingest/contracttest"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// phpWithCurl is the PHP that deployments/local/php.sh finds or installs. The test is skipped with CAMPANILE_SKIP_REAL=1, and, outside
// CI, where none can be had.
func phpWithCurl(t *testing.T) string {
	t.Helper()
	if os.Getenv("CAMPANILE_SKIP_REAL") == "1" {
		t.Skip("CAMPANILE_SKIP_REAL=1: nothing is asked by PHP's curl")
	}
	var said bytes.Buffer
	cmd := exec.Command("../../deployments/local/php.sh")
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("NOT TESTED with PHP's curl, which cannot be had: %v: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	if err != nil {
		t.Fatalf("%v: %s", err, said.Bytes())
	}
	var php string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if path, ok := strings.CutPrefix(line, "PHP="); ok {
			php = path
		} else {
			t.Log(line)
		}
	}
	return php
}

// phpAnswer is a line of moodle.php.
type phpAnswer struct {
	contracttest.Answer
	Error string `json:"error"`
	HTTP  int    `json:"http"` // 2 is HTTP/1.1, 3 is HTTP/2, in curl's numbers
}

// TestPHPsCurlGetsTheContractsAnswers lets PHP's curl ask the binary, over TLS, what ingest's own conformance test asks, and finds what
// was accepted in the log.
func TestPHPsCurlGetsTheContractsAnswers(t *testing.T) {
	t.Parallel()
	php := phpWithCurl(t)
	c, err := contracttest.Load()
	if err != nil {
		t.Fatal(err)
	}
	check := httptest.NewServer(c.SiteCheck())
	defer check.Close()
	f := newPairFiles(t)
	f.write(t, "campanile", time.Now().AddDate(0, 1, 0))
	w := newWorld(t)
	u := w.up(t, withoutAnalytics, "CAMPANILE_HTTP_TLS_CERT="+f.cert, "CAMPANILE_HTTP_TLS_KEY="+f.key,
		"CAMPANILE_HTTP_TRUSTED_PROXIES="+strings.Join(c.TrustedProxies, ","), "CAMPANILE_HTTP_SITE_CHECK_URL="+check.URL)
	log := w.open(t)
	if err := log.Append(t.Context(), c.Say); err != nil {
		t.Fatal(err)
	}

	cases := c.Cases()
	requests := make([]contracttest.Request, len(cases))
	for i, one := range cases {
		requests[i] = c.Request(one)
	}
	// Ingest follows the log: what was just said may be a moment away.
	dead := contracttest.Request{Method: "POST", Path: "/api/v2/push/", App: &c.App, Headers: []string{}, Body: `{"device":"fcm","token":"` + c.Dead[0] + `","alert":"?"}`}
	all := c.Keys["all"].Value
	dead.Key = &all
	eventually(t, time.Minute, "the dead token is known as dead", func() bool {
		return askByPHP(t, php, u.info.API, []contracttest.Request{dead})[0].Status == 404
	})

	answers := askByPHP(t, php, u.info.API, requests)
	if len(answers) != len(cases) {
		t.Fatalf("%d answers to %d requests", len(answers), len(cases))
	}
	versions := map[int]int{}
	kept := map[string]string{}
	for i, one := range cases {
		name, got := one.Section()+": "+one.Says, answers[i]
		versions[got.HTTP]++
		if got.Error != "" {
			t.Errorf("%s: curl says: %s", name, got.Error)
			continue
		}
		if err := one.Check(&got.Answer); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if one.Keep != "" {
			if kept[one.Keep], err = got.Key(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	t.Logf("%d requests, by curl's number of the HTTP version: %v", len(cases), versions)

	pushes, casts := map[string]*pushv1.NotificationRequested{}, map[string]*pushv1.BroadcastRequested{}
	read := func(r schemas.Record) error {
		e, err := r.Event()
		switch e := e.(type) {
		case *pushv1.NotificationRequested:
			pushes[schemas.ID(e.RequestId).String()] = e
		case *pushv1.BroadcastRequested:
			casts[schemas.ID(e.BroadcastId).String()] = e
		}
		return err
	}
	if err := replay(t.Context(), log, "php", read, schemas.Notifications, schemas.Broadcasts); err != nil {
		t.Fatal(err)
	}
	for i, one := range cases {
		name, id := one.Section()+": "+one.Says, answers[i].ID
		if one.Pushes != nil {
			if err := one.CheckPush(pushes[id]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if one.Sends != nil {
			claim := func(key string) string { return w.claimOf(t, c.AppOf(one), kept[key]) }
			if err := one.CheckBroadcast(casts[id], claim); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	u.stop(t)
}

// askByPHP runs moodle.php. Its patience is not Moodle's: a machine may be slow, and a test asserts no time.
func askByPHP(t *testing.T, php, base string, requests []contracttest.Request) (answers []phpAnswer) {
	t.Helper()
	dir := t.TempDir()
	script, list := filepath.Join(dir, "moodle.php"), filepath.Join(dir, "requests.json")
	writeFile(t, script, contracttest.MoodlePHP())
	writeFile(t, list, string(asJSON(t, requests)))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, php, script, list, base, "60")
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("moodle.php: %v\n%s%s", err, said.Bytes(), out)
	}
	d := json.NewDecoder(bytes.NewReader(out))
	for d.More() {
		var a phpAnswer
		if err := d.Decode(&a); err != nil {
			t.Fatal(errors.Join(err, errors.New(string(out))))
		}
		answers = append(answers, a)
	}
	return answers
}
