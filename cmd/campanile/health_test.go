package main

import (
	"bytes"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthSaysWhatAProcessWaitsFor(t *testing.T) {
	t.Parallel()
	h := newHealth()
	ops := httptest.NewServer(opsHandler(h, newRegistry(), &pacing{}))
	defer ops.Close()
	address := strings.TrimPrefix(ops.URL, "http://")
	ask := func(args ...string) (out string, code int) {
		var stdout, stderr bytes.Buffer
		code = execute(t.Context(), append([]string{"health", "--ops-listen", address}, args...), nil, strings.NewReader(""), &stdout, &stderr)
		return stdout.String() + stderr.String(), code
	}
	if out, code := ask(); code != 0 || out != "ok\n" {
		t.Errorf("ready: want ok, got %d, %q", code, out)
	}
	h.wait("router", "reading the log")
	h.wait("devices", "away")
	if out, code := ask(); code != 1 || out != "campanile: not ready: devices: away; router: reading the log\n" {
		t.Errorf("waiting: want both reasons, got %d, %q", code, out)
	}
	if out, code := ask("--alive"); code != 0 || out != "ok\n" {
		t.Errorf("alive: want ok, got %d, %q", code, out)
	}
	ops.Close()
	if out, code := ask(); code != 1 || !strings.Contains(out, "is it running") {
		t.Errorf("stopped: want what to look at, got %d, %q", code, out)
	}
}

func TestLocalAddressIsReachedFromTheSameHost(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:8802": "127.0.0.1:8802",
		"0.0.0.0:8802":   "127.0.0.1:8802",
		":8802":          "127.0.0.1:8802",
		"[::]:8802":      "[::1]:8802",
		"10.1.2.3:80":    "10.1.2.3:80",
		"ops.local:80":   "ops.local:80",
	} {
		if got := localAddress(listen); got != want {
			t.Errorf("%s: want %s, got %s", listen, want, got)
		}
	}
}
