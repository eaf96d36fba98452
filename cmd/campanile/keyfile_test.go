package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreMadeOnceAndReadableByTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	initKeys := func() string {
		var stdout, stderr bytes.Buffer
		if code := execute(t.Context(), []string{"key-file", "--init", dir}, nil, strings.NewReader(""), &stdout, &stderr); code != 0 {
			t.Fatalf("want success, got %d: %s", code, &stderr)
		}
		return stdout.String()
	}
	if out := initKeys(); strings.Count(out, "made ") != 2 {
		t.Errorf("want both made, got %q", out)
	}
	made := map[string]string{}
	for _, name := range []string{"master.key", "hash.key"} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: want mode 600, got %v", name, info.Mode())
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		made[name] = string(text)
	}
	if out := initKeys(); out != "" {
		t.Errorf("a second time: want nothing made, got %q", out)
	}
	for name, text := range made {
		if again, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(again) != text {
			t.Errorf("%s changed, %v", name, err)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), []string{"key-file", "--init", filepath.Join(dir, "none")}, nil, strings.NewReader(""), &stdout, &stderr); code != 1 {
		t.Errorf("a folder that is not there: want an error, got %d", code)
	}
}
