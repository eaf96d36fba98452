package apns

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"time"
)

// sign makes a provider token (RFC 7519, ES256 of RFC 7518). apns2 makes another at each call, since its signatures are random; this one
// is the same for the same key and time, wherever it is made (RFC 6979).
func sign(key *ecdsa.PrivateKey, keyID, team string, issued time.Time) (string, error) {
	header, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}{"ES256", keyID})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		IssuedAt int64  `json:"iat"`
	}{team, issued.Unix()})
	if err != nil {
		return "", err
	}
	code := base64.RawURLEncoding
	text := code.AppendEncode(nil, header)
	text = code.AppendEncode(append(text, '.'), claims)
	sum := sha256.Sum256(text)
	der, err := key.Sign(nil, sum[:], crypto.SHA256) // without a source of randomness it is deterministic
	if err != nil {
		return "", err
	}
	var pair struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &pair); err != nil {
		return "", err
	}
	var signature [64]byte
	pair.R.FillBytes(signature[:32])
	pair.S.FillBytes(signature[32:])
	return string(code.AppendEncode(append(text, '.'), signature[:])), nil
}
