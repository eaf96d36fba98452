package main

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// TestAJobThatIsInterruptedHasFailed: a script must not take half of it for all. A service that is asked to stop has done its work.
func TestAJobThatIsInterruptedHasFailed(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	secrets := t.TempDir()
	if code := execute(t.Context(), []string{"key-file", "--init", secrets}, nil, strings.NewReader(""), io.Discard, io.Discard); code != 0 {
		t.Fatalf("key-file --init: exit status %d", code)
	}
	for _, test := range []struct {
		command string
		want    int
	}{
		{"reconcile", exitInterrupted}, {"projector", 0},
	} {
		var stdout, stderr bytes.Buffer
		args := []string{
			test.command, "--data", t.TempDir(), "--kafka-brokers", "127.0.0.1:1",
			"--vault-master-key-file", filepath.Join(secrets, "master.key"), "--vault-hash-key-file", filepath.Join(secrets, "hash.key"),
		}
		if got := execute(ctx, args, nil, strings.NewReader(""), &stdout, &stderr); got != test.want {
			t.Errorf("%s: want exit status %d, got %d: %s", test.command, test.want, got, &stderr)
		}
	}
}
