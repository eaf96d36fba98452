package fcm

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync"

	"golang.org/x/oauth2/jwt"
)

// Tokens keep one access token for each service account, whatever the number of apps, lanes and connections that push as it: one fetch
// an hour, and what one push learns of it all know. The zero value is ready, and safe for concurrent use.
type Tokens struct {
	mu        sync.Mutex
	byAccount map[accountKey]*tokens
}

// accountKey tells service accounts apart, and ways to ask for them.
type accountKey struct {
	email, endpoint string
	key             [sha256.Size]byte // of the private key: two files of one account are two
	roots           *x509.CertPool
}

// of finds the tokens of a service account, which the caller releases.
func (t *Tokens) of(config *jwt.Config, trust *tls.Config) *tokens {
	k := accountKey{config.Email, config.TokenURL, sha256.Sum256(config.PrivateKey), trust.RootCAs}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byAccount[k]
	if s == nil {
		oauth := &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment}
		s = &tokens{
			config: config, client: &http.Client{Transport: oauth, Timeout: fetchTimeout}, idle: oauth.CloseIdleConnections, all: t, key: k,
		}
		if t.byAccount == nil {
			t.byAccount = map[accountKey]*tokens{}
		}
		t.byAccount[k] = s
	}
	s.used++
	return s
}

// release ends the use by one provider. The last one waits for the fetch that is under way, and the token is forgotten: its credentials
// may have been replaced.
func (s *tokens) release() {
	s.all.mu.Lock()
	s.used--
	last := s.used == 0
	if last {
		delete(s.all.byAccount, s.key)
	}
	s.all.mu.Unlock()
	if !last {
		return
	}
	s.wg.Wait()
	s.idle()
}
