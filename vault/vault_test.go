package vault_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/campanile-push/campanile/vault"
)

func ring(t *testing.T, text string) *vault.Keyring {
	t.Helper()
	k, err := vault.ParseKeyring(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealedOpensOnlyWhereItBelongs(t *testing.T) {
	t.Parallel()
	k := ring(t, vault.NewKeyLine("a"))
	secret := []byte("-----BEGIN PRIVATE KEY-----")
	sealed := k.Seal(secret, "app", "apns")
	if bytes.Contains(sealed, secret) {
		t.Fatal("the secret stands in the envelope")
	}
	got, err := k.Open(sealed, "app", "apns")
	if err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("want the secret, got %q, %v", got, err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another app":       func() ([]byte, error) { return k.Open(sealed, "other", "apns") },
		"another transport": func() ([]byte, error) { return k.Open(sealed, "app", "fcm") },
		"cut":               func() ([]byte, error) { return k.Open(sealed[:len(sealed)-1], "app", "apns") },
		"empty":             func() ([]byte, error) { return k.Open(nil, "app", "apns") },
		"changed": func() ([]byte, error) {
			b := bytes.Clone(sealed)
			b[len(b)-1] ^= 1
			return k.Open(b, "app", "apns")
		},
	} {
		if _, err := open(); !errors.Is(err, vault.ErrTampered) {
			t.Errorf("%s: want ErrTampered, got %v", name, err)
		}
	}
	if bytes.Equal(sealed, k.Seal(secret, "app", "apns")) {
		t.Error("two seals of one secret are equal: the nonce repeats")
	}
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	first, second := vault.NewKeyLine("2026-01"), vault.NewKeyLine("2026-07")
	sealed := ring(t, first).Seal([]byte("s"), "app", "fcm")
	both := ring(t, "# current\n"+second+"\n"+first)
	if got, err := both.Open(sealed, "app", "fcm"); err != nil || string(got) != "s" {
		t.Errorf("the old key no longer opens: %q, %v", got, err)
	}
	if !both.Stale(sealed) || both.Stale(both.Seal([]byte("s"), "app", "fcm")) {
		t.Error("Stale does not tell the old key from the current one")
	}
	if _, err := ring(t, second).Open(sealed, "app", "fcm"); !errors.Is(err, vault.ErrUnknownKey) {
		t.Errorf("want ErrUnknownKey, got %v", err)
	}
}

func TestBadKeyFilesAreRefused(t *testing.T) {
	t.Parallel()
	line := vault.NewKeyLine("a")
	for name, text := range map[string]string{"empty": "", "no id": ":" + line[2:], "short": "a:AAAA\n", "no base64": "a:!\n", "twice": line + line, "no colon": "abc"} {
		if _, err := vault.ParseKeyring(text); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, text := range []string{"", "AAAA", "!"} {
		if _, err := vault.ParseHasher(text); err == nil {
			t.Errorf("hash key %q: taken", text)
		}
	}
}

func TestHashDependsOnKeyAndDevice(t *testing.T) {
	t.Parallel()
	// SipHash-2-4 of 00 01 … 0e under 00 01 … 0f (the reference vector of the paper, appendix A).
	h, err := vault.ParseHasher("AAECAwQFBgcICQoLDA0ODw==")
	if err != nil {
		t.Fatal(err)
	}
	message := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	if got, want := h.Hash(message), uint64(0xa129ca6149be45e5); got != want {
		t.Errorf("want %x, got %x", want, got)
	}
	other, err := vault.ParseHasher(vault.NewHashKey())
	if err != nil {
		t.Fatal(err)
	}
	if other.Hash(message) == h.Hash(message) {
		t.Error("two keys give one hash")
	}
}

func TestSecretFilesAreMadeOnceAndPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "master.key")
	made, err := vault.LoadOrCreate(path, func() string { return vault.NewKeyLine("a") })
	if err != nil {
		t.Fatal(err)
	}
	again, err := vault.LoadOrCreate(path, func() string { t.Error("made twice"); return "" })
	if err != nil || again != made {
		t.Errorf("want %q, got %q, %v", made, again, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func FuzzOpen(f *testing.F) {
	k, err := vault.ParseKeyring(vault.NewKeyLine("a"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.Seal([]byte("s"), "app", "apns"))
	f.Add([]byte{1, 255})
	f.Fuzz(func(t *testing.T, envelope []byte) {
		if _, err := k.Open(envelope, "other", "apns"); err == nil {
			t.Error("opened for an app that it was not sealed for")
		}
		k.Stale(envelope)
	})
}
