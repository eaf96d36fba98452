package simulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// assertion is a service account's request for an access token (RFC 7523).
type assertion struct {
	grantType, token string
}

// scopeMessaging and scopeCloud are the scopes that may send.
const (
	scopeMessaging = "https://www.googleapis.com/auth/firebase.messaging"
	scopeCloud     = "https://www.googleapis.com/auth/cloud-platform"
	grantJWT       = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	maxAssertion   = time.Hour
)

// oauthProblem is an error of RFC 6749, section 5.2.
type oauthProblem struct {
	code, description string
}

// checkAssertion verifies a token request as oauth2.googleapis.com does, and returns the project that it is for. tokenURI is
// the address that the request came to.
func checkAssertion(a assertion, tokenURI string, now time.Time, account func(email string) (project string, verify func(*jwt) bool)) (string, *oauthProblem) {
	if a.grantType != grantJWT {
		return "", &oauthProblem{"unsupported_grant_type", "Invalid grant_type: " + strconv.Quote(a.grantType)}
	}
	t, err := parseJWT([]byte(a.token))
	if err != nil {
		return "", &oauthProblem{"invalid_grant", "Bad Request"}
	}
	project, verify := account(t.claims.Issuer)
	if project == "" {
		return "", &oauthProblem{"invalid_grant", "Invalid grant: account not found"}
	}
	issued, expires := t.claims.issuedAt(), t.claims.expires()
	scopes := strings.Fields(t.claims.Scope)
	switch {
	case !verify(&t):
		return "", &oauthProblem{"invalid_grant", "Invalid JWT Signature."}
	case t.claims.Audience != tokenURI:
		return "", &oauthProblem{"invalid_grant", "Invalid JWT: Failed audience check. The right audience is " + tokenURI}
	case t.claims.IssuedAt <= 0 || t.claims.Expires <= 0 || issued.After(now.Add(clockSkew)) || expires.Before(now) || expires.Sub(issued) > maxAssertion:
		return "", &oauthProblem{"invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim."}
	case !slices.Contains(scopes, scopeMessaging) && !slices.Contains(scopes, scopeCloud):
		return "", &oauthProblem{"invalid_scope", "Invalid OAuth scope or ID token audience provided."}
	}
	return project, nil
}

// accessPrefix is how Google's access tokens begin.
const accessPrefix = "ya29.sim."

// accessToken makes a token that needs no table: project, end and a MAC under the simulator's own key. It is valid after a
// restart too.
func accessToken(secret []byte, project string, expires time.Time) string {
	claim := base64.RawURLEncoding.EncodeToString([]byte(project)) + "." + strconv.FormatInt(expires.Unix(), 10)
	return accessPrefix + claim + "." + accessMAC(secret, claim)
}

func accessMAC(secret []byte, claim string) string {
	m := hmac.New(sha256.New, secret)
	_, _ = m.Write([]byte(claim)) // a hash never fails
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// readAccess verifies an Authorization header; false for what we did not issue.
func readAccess(secret []byte, header string) (project string, expires int64, ok bool) {
	scheme, token, _ := strings.Cut(header, " ")
	rest, ours := strings.CutPrefix(token, accessPrefix)
	cut := strings.LastIndexByte(rest, '.')
	if !strings.EqualFold(scheme, "bearer") || !ours || cut < 0 {
		return "", 0, false
	}
	claim, mac := rest[:cut], rest[cut+1:]
	if subtle.ConstantTimeCompare([]byte(mac), []byte(accessMAC(secret, claim))) != 1 {
		return "", 0, false
	}
	encoded, end, _ := strings.Cut(claim, ".")
	name, err := base64.RawURLEncoding.DecodeString(encoded)
	seconds, errEnd := strconv.ParseInt(end, 10, 64)
	return string(name), seconds, err == nil && errEnd == nil
}

// checkAccess decides over the Authorization header of a send to a project. The reason is "" where it may.
func checkAccess(secret []byte, header, project string, now time.Time) (reason string) {
	var c accessCache
	return c.check(secret, header, project, now)
}

// accessCache remembers which headers of one connection were good, so that their MAC is not computed again. The zero value is
// empty. Safe for concurrent use.
type accessCache struct {
	mu     sync.Mutex
	last   access
	others map[string]access
}

// access is a verified header.
type access struct {
	header, project string
	expires         int64 // Unix seconds
}

// mostAccess bounds the projects of one connection that are remembered.
const mostAccess = 64

func (c *accessCache) check(secret []byte, header, project string, now time.Time) (reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.header != header || header == "" {
		known, ok := c.others[header]
		if !ok {
			name, expires, good := readAccess(secret, header)
			if !good {
				return fcmUnauthenticated
			}
			known = access{header, name, expires}
			if c.others == nil || len(c.others) >= mostAccess {
				c.others = map[string]access{}
			}
			c.others[header] = known
		}
		c.last = known
	}
	switch {
	case now.Unix() >= c.last.expires:
		return fcmUnauthenticated
	case c.last.project != project:
		return fcmPermission
	}
	return ""
}
