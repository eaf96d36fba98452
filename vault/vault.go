// Package vault seals credentials at rest and hashes tokens under a key. The two keys are apart: the sealing key can be
// rotated, the hashing key never, since every stored hash would lose its meaning.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
)

// KeySize is the size of a master key in bytes (AES-256).
const KeySize = 32

// Errors of Open.
var (
	ErrUnknownKey = errors.New("sealed under a master key that is not in the key file")
	ErrTampered   = errors.New("the sealed value does not belong here, or was changed")
)

// Keyring holds the master keys by id. The first seals; all of them open.
type Keyring struct {
	current string
	aeads   map[string]cipher.AEAD
}

// ParseKeyring reads one key a line, "<id>:<base64 of 32 bytes>", the current one first. Blank lines and lines with # are
// skipped. An id is 1 to 32 bytes.
func ParseKeyring(text string) (*Keyring, error) {
	k := &Keyring{aeads: map[string]cipher.AEAD{}}
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, encoded, ok := strings.Cut(line, ":")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || id == "" || len(id) > 32 || err != nil || len(raw) != KeySize {
			return nil, fmt.Errorf("master key, line %d: want <id>:<base64 of %d bytes>, as `campanile key-file` makes it", n+1, KeySize)
		}
		if _, taken := k.aeads[id]; taken {
			return nil, fmt.Errorf("master key, line %d: the id %q stands twice", n+1, id)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		k.aeads[id] = aead
		if k.current == "" {
			k.current = id
		}
	}
	if k.current == "" {
		return nil, errors.New("no master key: want at least one line <id>:<base64 of 32 bytes>")
	}
	return k, nil
}

// NewKeyLine returns a fresh key as a line for ParseKeyring.
func NewKeyLine(id string) string {
	raw := make([]byte, KeySize)
	_, _ = rand.Read(raw) // never fails: crypto/rand crashes the program instead
	return id + ":" + base64.StdEncoding.EncodeToString(raw) + "\n"
}

const sealVersion = 1

// Seal encrypts plaintext for exactly this app and transport. The envelope is version, id length, id, nonce, ciphertext.
func (k *Keyring) Seal(plaintext []byte, app, transport string) []byte {
	aead := k.aeads[k.current]
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce)
	envelope := append([]byte{sealVersion, byte(len(k.current))}, k.current...)
	envelope = append(envelope, nonce...)
	return aead.Seal(envelope, nonce, plaintext, binding(k.current, app, transport))
}

// Open decrypts an envelope of Seal. It returns ErrUnknownKey or ErrTampered, wrapped.
func (k *Keyring) Open(envelope []byte, app, transport string) ([]byte, error) {
	if len(envelope) < 2 || envelope[0] != sealVersion || len(envelope) < 2+int(envelope[1]) {
		return nil, fmt.Errorf("credentials of %s for %s: no sealed value: %w", app, transport, ErrTampered)
	}
	id, rest := string(envelope[2:2+int(envelope[1])]), envelope[2+int(envelope[1]):]
	aead, ok := k.aeads[id]
	if !ok {
		return nil, fmt.Errorf("credentials of %s for %s: key id %q: %w", app, transport, id, ErrUnknownKey)
	}
	if len(rest) < aead.NonceSize() {
		return nil, fmt.Errorf("credentials of %s for %s: %w", app, transport, ErrTampered)
	}
	plaintext, err := aead.Open(nil, rest[:aead.NonceSize()], rest[aead.NonceSize():], binding(id, app, transport))
	if err != nil {
		return nil, fmt.Errorf("credentials of %s for %s: %w", app, transport, ErrTampered)
	}
	return plaintext, nil
}

// Stale reports whether an envelope is sealed under a key other than the current one, and should be sealed anew.
func (k *Keyring) Stale(envelope []byte) bool {
	return len(envelope) < 2 || len(envelope) < 2+int(envelope[1]) || string(envelope[2:2+int(envelope[1])]) != k.current
}

func binding(id, app, transport string) []byte {
	return []byte("campanile credentials\x00" + id + "\x00" + app + "\x00" + transport)
}

// LoadOrCreate returns the content of a secret file, which create makes, readable by its owner only, where there is none.
func LoadOrCreate(path string, create func() string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		return string(b), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	content := create()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	if _, err = f.WriteString(content); err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return content, err
}
