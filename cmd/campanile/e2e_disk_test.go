package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/campanile-push/campanile/bench"
)

// refusal is how an API answers what it has no room for; "" if that is not what it answered.
func refusal(t *testing.T, m bench.Moodle, method, path, label, body string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, m.BaseURL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", label)
	r.Header.Set("X-AN-APP-NAME", m.App)
	r.Header.Set("X-AN-APP-KEY", m.Key)
	res, err := m.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if res.StatusCode != http.StatusServiceUnavailable || err != nil || seconds < 1 {
		return ""
	}
	return string(text)
}

// refusesAll fails unless everything that would grow the log is answered 503 with a Retry-After and the reason.
func refusesAll(t *testing.T, m bench.Moodle, p bench.Phone, why string) {
	t.Helper()
	for _, c := range [][4]string{
		{"POST", "/api/v2/push/", formLabel, `{"device":"` + p.Platform + `","token":"` + p.Token + `","alert":"x"}`},
		{"POST", "/notification/", formLabel, "alert=x&device=" + p.Platform + "&token=" + strings.ReplaceAll(p.Token, ":", "%3A")},
		{"POST", "/tokens/" + p.Token, formLabel, "device=" + p.Platform},
		{"DELETE", "/tokens/" + p.Token, "", ""},
		{"POST", "/api/v2/broadcast/", "application/json", `{"alert":"x","channel":"everybody"}`},
		{"POST", "/accesskeys/", formLabel, "url=https://m.example.org&siteid=1"},
	} {
		if got := refusal(t, m, c[0], c[1], c[2], c[3]); !strings.Contains(got, why) {
			t.Errorf("%s %s: want 503 with Retry-After and %q, got %q", c[0], c[1], why, got)
		}
	}
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// ballast fills a disk until only so many bytes are free; 0: until nothing more can be written.
func ballast(t *testing.T, file string, leave int64) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for chunk := make([]byte, 1<<20); ; {
		left := free(t, filepath.Dir(file)) - leave
		if left <= 0 {
			return
		}
		_, err := f.Write(chunk[:min(left, int64(len(chunk)))])
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskFillsUp fills the disk under the data directory while a broadcast runs: what is new is refused with a reason before the disk is
// full, what was taken goes on, and when there is space again everything does.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	const n = 10_000
	w := newWorld(t, "--latency", "100ms")
	if err := os.Mkdir(w.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.data(), "tmpfs", 0, "size=512m"); err != nil {
		t.Skipf("NOT TESTED on a disk that fills up: a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(w.data(), syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	u := w.up(t, withoutAnalytics, "CAMPANILE_SENDERS_WINDOW=64")
	w.app(t, app)
	m := u.moodle(app, w.key(t, app, "all"))
	all := phones("disk", n)
	w.load(t, app, "everybody", all)
	if _, err := m.Broadcast(t.Context(), "everybody", "while there is room"); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the broadcast runs", func() bool { return w.summary(t).Accepted > 0 })

	file := filepath.Join(w.data(), "ballast")
	ballast(t, file, 200<<20)
	var taken int64 // before the broker has looked at the disk again
	eventually(t, time.Minute, "a push is refused", func() bool {
		a, err := m.Push(t.Context(), all[0].Token, all[0].Platform, "still?")
		if err == nil && a.Status == http.StatusAccepted {
			taken++
		}
		return err == nil && a.Status == http.StatusServiceUnavailable
	})
	refusesAll(t, m, all[0], "the disk is nearly full")
	if got := w.summary(t).Accepted; got >= n {
		t.Errorf("the broadcast was over (%d) before the disk filled up: nothing is shown", got)
	}
	if r := w.settled(t, 2*time.Minute); r.Accepted != n+taken || r.Delivered != n+taken {
		t.Errorf("what was taken before: want %d accepted and delivered, got %+v", n+taken, r)
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "a push is taken again", func() bool {
		a, err := m.Push(t.Context(), all[0].Token, all[0].Platform, "and on")
		return err == nil && a.Status == http.StatusAccepted
	})
	w.works(t, m, "after")
	u.stop(t)
}

// TestLogReachesItsBudget pushes until the embedded log is as large as it may be: what is new is refused with a reason, all that was taken
// ends in one way, and a larger budget lets it go on.
func TestLogReachesItsBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.up(t, withoutAnalytics, "CAMPANILE_EMBEDDED_MAX_LOG="+strconv.Itoa(64<<20))
	w.app(t, app)
	key := w.key(t, app, "all")
	m := u.moodle(app, key)
	noise := make([]byte, 96<<10) // which no codec makes smaller
	_, _ = rand.Read(noise)
	text := base64.StdEncoding.EncodeToString(noise)
	var taken, refused atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := bench.Each(ctx, 5000, 4, nil, func(ctx context.Context, i int) error {
		if refused.Load() > 0 {
			return nil
		}
		p := bench.MakePhone("budget", i%50)
		body := asJSON(t, map[string]any{"device": p.Platform, "token": p.Token, "alert": "x", "extra": map[string]string{"a": text[i%1000:]}})
		a, err := m.Do(ctx, http.MethodPost, "/api/v2/push/", formLabel, body)
		switch {
		case err != nil:
			return err
		case a.Status == http.StatusAccepted:
			taken.Add(1)
		case a.Status == http.StatusServiceUnavailable:
			refused.Add(1)
		default:
			t.Errorf("push: %d %s", a.Status, a.Body)
		}
		return nil
	})
	if err != nil || refused.Load() == 0 {
		t.Fatalf("%d pushes taken, %d refused, %v", taken.Load(), refused.Load(), err)
	}
	refusesAll(t, m, bench.MakePhone("budget", 0), "the log has reached its budget")
	r := w.settled(t, time.Minute)
	t.Logf("%d pushes fill the log: %+v", taken.Load(), r)
	if r.Accepted != taken.Load() {
		t.Errorf("%d pushes were taken, and the log accounts for %+v", taken.Load(), r)
	}
	u.stop(t)
	u = w.up(t, withoutAnalytics, "CAMPANILE_EMBEDDED_MAX_LOG="+strconv.Itoa(1<<30))
	w.works(t, u.moodle(app, key), "after")
	u.stop(t)
}
