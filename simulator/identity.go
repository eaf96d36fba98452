package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Names of the files in Options.Dir that others read.
const (
	CAFile             = "ca.pem"               // the certificate authority to trust
	ServiceAccountFile = "service-account.json" // FCM credentials of the default project
	identityFile       = "identity.json"
)

// Defaults of the generated credentials.
const (
	DefaultProject = "campanile-demo"
	DefaultTeam    = "CAMPANILE1" // 10 characters, as Apple's are
)

// APNSKey is a key for provider tokens, as Apple's developer site issues it.
type APNSKey struct {
	TeamID string `json:"team_id"`
	KeyID  string `json:"key_id"`
	P8     string `json:"p8"` // PEM of PKCS #8
	// Environment, where set, is the only one that the key works in (production or sandbox).
	Environment string `json:"environment,omitempty"`
	// Topics, where set, are the only bundle ids that the key works for.
	Topics []string `json:"topics,omitempty"`

	private *ecdsa.PrivateKey
}

// identity is what the simulator is known by. It is made once and kept in its directory, so that credentials given to a
// Campanile go on working after a restart. Safe for concurrent use.
type identity struct {
	dir     string
	account *rsa.PrivateKey // of every service account
	secret  []byte          // of access tokens
	ca      *authority

	mu    sync.RWMutex
	file  identityJSON
	byKID map[string]*APNSKey
}

// identityJSON is the form on disk.
type identityJSON struct {
	CA        string            `json:"ca"`      // PEM: certificate, key
	Account   string            `json:"account"` // PEM of PKCS #8
	Secret    string            `json:"secret"`  // hex
	Keys      []*APNSKey        `json:"apns_keys"`
	Addresses map[string]string `json:"addresses,omitempty"` // last used, by listener
}

const accountKeyBits = 2048 // as Google's

// openIdentity reads the directory's identity, or makes one. The directory is there.
func openIdentity(dir string) (*identity, error) {
	id := &identity{dir: dir, byKID: map[string]*APNSKey{}}
	text, err := os.ReadFile(filepath.Join(dir, identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := id.generate(); err != nil {
			return nil, fmt.Errorf("make the simulator's identity: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("read the simulator's identity: %w", err)
	default:
		if err := id.load(text); err != nil {
			return nil, fmt.Errorf("%s is damaged (%w): remove it, and give the new credentials to whoever used the old ones", filepath.Join(dir, identityFile), err)
		}
	}
	if err := writeFile(dir, CAFile, id.ca.certificatePEM); err != nil {
		return nil, err
	}
	return id, nil
}

func (id *identity) generate() error {
	ca, text, err := newAuthority()
	if err != nil {
		return err
	}
	account, err := rsa.GenerateKey(rand.Reader, accountKeyBits)
	if err != nil {
		return err
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails: crypto/rand crashes the program instead
	id.ca, id.account, id.secret = ca, account, secret
	id.file.CA, id.file.Account, id.file.Secret = text, privatePEM(account), hex.EncodeToString(secret)
	_, err = id.newKey(APNSKey{TeamID: DefaultTeam})
	return err
}

func (id *identity) load(text []byte) error {
	if err := json.Unmarshal(text, &id.file); err != nil {
		return err
	}
	var err error
	if id.ca, err = parseAuthority(id.file.CA); err != nil {
		return err
	}
	key, err := parsePrivate(id.file.Account)
	if err != nil {
		return err
	}
	account, ok := key.(*rsa.PrivateKey)
	if !ok {
		return errors.New("the service account's key is no RSA key")
	}
	id.account = account
	if id.secret, err = hex.DecodeString(id.file.Secret); err != nil || len(id.secret) == 0 {
		return errors.New("no secret for access tokens")
	}
	for _, k := range id.file.Keys {
		key, err := parsePrivate(k.P8)
		if err != nil {
			return err
		}
		private, ok := key.(*ecdsa.PrivateKey)
		if !ok {
			return errors.New("an APNs key is no ECDSA key")
		}
		k.private = private
		id.byKID[k.KeyID] = k
	}
	if len(id.file.Keys) == 0 {
		return errors.New("no APNs key")
	}
	return nil
}

var teamForm = regexp.MustCompile(`^[A-Z0-9]{10}$`)

// newKey issues an APNs key for k's team, environment and topics, and keeps it.
func (id *identity) newKey(k APNSKey) (APNSKey, error) {
	if !teamForm.MatchString(k.TeamID) {
		return k, fmt.Errorf("%q is no team id: want 10 of A-Z and 0-9", k.TeamID)
	}
	if k.Environment != "" && k.Environment != Production && k.Environment != Sandbox {
		return k, fmt.Errorf("%q is no environment: want production or sandbox, or nothing for both", k.Environment)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return k, err
	}
	name := make([]byte, 5)
	_, _ = rand.Read(name)
	k.KeyID, k.P8, k.private = strings.ToUpper(hex.EncodeToString(name)), privatePEM(private), private
	id.mu.Lock()
	defer id.mu.Unlock()
	id.file.Keys = append(id.file.Keys, &k)
	id.byKID[k.KeyID] = &k
	if err := writeFile(id.dir, "AuthKey_"+k.KeyID+".p8", []byte(k.P8)); err != nil {
		return k, err
	}
	return k, id.save()
}

// key finds an APNs key; nil where there is none.
func (id *identity) key(kid string) *APNSKey {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.byKID[kid]
}

// firstKey is the key that was made with the identity.
func (id *identity) firstKey() APNSKey {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return *id.file.Keys[0]
}

// address is where a listener stood last; setAddresses keeps where they stand now.
func (id *identity) address(listener string) string {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.file.Addresses[listener]
}

func (id *identity) setAddresses(addresses map[string]string) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.file.Addresses = addresses
	return id.save()
}

// save is called with mu held, or before anybody else knows id.
func (id *identity) save() error {
	text, err := json.MarshalIndent(&id.file, "", "  ") //nolint:gosec // the secret of a stand-in, in its own directory, mode 0600
	if err != nil {
		return err
	}
	return writeFile(id.dir, identityFile, text)
}

const accountDomain = ".iam.gserviceaccount.com"

// projectOf is the project of a service account's e-mail; "" for an address that is none.
func projectOf(email string) string {
	_, domain, _ := strings.Cut(email, "@")
	project, ok := strings.CutSuffix(domain, accountDomain)
	if !ok || !projectForm.MatchString(project) {
		return ""
	}
	return project
}

var projectForm = regexp.MustCompile(`^[a-z][a-z0-9-]{3,62}$`)

// serviceAccount is the credentials file of a project, as Google's console gives it out.
func (id *identity) serviceAccount(project, tokenURI string) ([]byte, error) {
	if !projectForm.MatchString(project) {
		return nil, fmt.Errorf("%q is no project id: want 4 to 63 of a-z, 0-9 and '-', starting with a letter", project)
	}
	email := "firebase-adminsdk-sim@" + project + accountDomain
	return json.MarshalIndent(map[string]string{
		"type":                        "service_account",
		"project_id":                  project,
		"private_key_id":              hex.EncodeToString(id.secret[:4]), // any name will do
		"private_key":                 id.file.Account,
		"client_email":                email,
		"client_id":                   "100000000000000000000",
		"auth_uri":                    strings.TrimSuffix(tokenURI, "/token") + "/auth",
		"token_uri":                   tokenURI,
		"auth_provider_x509_cert_url": strings.TrimSuffix(tokenURI, "/token") + "/certs",
		"universe_domain":             "googleapis.com",
	}, "", "  ")
}

func privatePEM(key any) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic("simulator: a fresh key has no PKCS #8 form: " + err.Error()) // RSA and P-256 keys always have
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func parsePrivate(text string) (any, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("no PEM block where a private key should be")
	}
	return x509.ParsePKCS8PrivateKey(block.Bytes)
}

// writeFile replaces a file in one step: a reader or a crash sees the old one or the new one.
func writeFile(dir, name string, text []byte) error {
	f, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(text)
	if errClose := f.Close(); err == nil {
		err = errClose
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
