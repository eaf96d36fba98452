package simulator

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"time"
)

// errJWT is any token that is not well-formed or whose signature does not hold. Providers do not say which.
var errJWT = errors.New("not a valid signed token")

// jwtHeader and jwtClaims are what either provider reads.
type jwtHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
}

type jwtClaims struct {
	Issuer   string  `json:"iss"`
	Scope    string  `json:"scope"`
	Audience string  `json:"aud"`
	IssuedAt float64 `json:"iat"` // Unix seconds; RFC 7519 allows a fraction
	Expires  float64 `json:"exp"`
}

// jwt is a token in its parts, its signature not yet checked.
type jwt struct {
	header    jwtHeader
	claims    jwtClaims
	signed    []byte
	signature []byte
}

// maxJWT bounds what is worth parsing, bytes: real ones have 200 to 800.
const maxJWT = 4096

// parseJWT reads the compact form of RFC 7515. It returns errJWT.
func parseJWT(s []byte) (jwt, error) {
	var t jwt
	parts := bytes.Split(s, []byte{'.'})
	if len(s) > maxJWT || len(parts) != 3 {
		return t, errJWT
	}
	if decodePart(parts[0], &t.header) != nil || decodePart(parts[1], &t.claims) != nil {
		return t, errJWT
	}
	signature, err := base64.RawURLEncoding.DecodeString(string(parts[2]))
	if err != nil {
		return t, errJWT
	}
	t.signature = signature
	t.signed = s[:len(parts[0])+1+len(parts[1])]
	return t, nil
}

func decodePart(part []byte, into any) error {
	text, err := base64.RawURLEncoding.DecodeString(string(part))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// es256 reports whether the signature is ES256 by that key (RFC 7518, section 3.4: r and s, 32 bytes each).
func (t *jwt) es256(key *ecdsa.PublicKey) bool {
	if t.header.Algorithm != "ES256" || len(t.signature) != 64 {
		return false
	}
	sum := sha256.Sum256(t.signed)
	return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(t.signature[:32]), new(big.Int).SetBytes(t.signature[32:]))
}

// rs256 reports whether the signature is RS256 by that key.
func (t *jwt) rs256(key *rsa.PublicKey) bool {
	if t.header.Algorithm != "RS256" {
		return false
	}
	sum := sha256.Sum256(t.signed)
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], t.signature) == nil
}

func (c *jwtClaims) issuedAt() time.Time { return unixSeconds(c.IssuedAt) }
func (c *jwtClaims) expires() time.Time  { return unixSeconds(c.Expires) }

// unixSeconds keeps absurd numbers within what time.Time can compare.
func unixSeconds(s float64) time.Time {
	const limit = 1 << 40
	if !(s > -limit && s < limit) {
		return time.Time{}
	}
	return time.UnixMilli(int64(s * 1000))
}

// clockSkew is how far a client's clock may run ahead before its token is from the future.
const clockSkew = time.Minute
