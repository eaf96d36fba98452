package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/sideshow/apns2/certificate"
	"github.com/sideshow/apns2/token"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

// idLength is the length of Apple's team and key ids.
const idLength = 10

// parsed are credentials that can be used: a signing key or a client certificate.
type parsed struct {
	topic       string
	team, keyID string
	key         *ecdsa.PrivateKey // nil: certificate is set
	certificate *tls.Certificate
}

// CheckCredentials says whether credentials can be used, and if not, what to do. It asks nobody: whether Apple accepts them, only a
// push can tell. The error wraps senders.ErrCredentials.
func CheckCredentials(c *pushv1.ApnsCredentials) error {
	_, err := parse(c)
	return err
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{senders.ErrCredentials}, args...)...)
}

func parse(c *pushv1.ApnsCredentials) (*parsed, error) {
	p := &parsed{topic: c.GetTopic(), team: c.GetTeamId(), keyID: c.GetKeyId()}
	switch {
	case p.topic == "" || strings.ContainsAny(p.topic, " \t\r\n/"):
		return nil, bad("the topic must be the app's bundle id, such as com.moodle.moodlemobile")
	case c.GetP8() == "" && len(c.GetP12()) == 0:
		return nil, bad("neither a .p8 key nor a .p12 certificate: create a key under Certificates, Identifiers & Profiles, Keys in Apple's developer account")
	case c.GetP8() != "" && len(c.GetP12()) > 0:
		return nil, bad("both a .p8 key and a .p12 certificate: give one of them")
	case c.GetP8() != "":
		return p, p.readKey(c.GetP8())
	}
	return p, p.readCertificate(c.GetP12(), c.GetP12Password())
}

func (p *parsed) readKey(pem string) error {
	if len(p.team) != idLength {
		return bad("the team id has %d characters: want the %d of Apple's Membership page", len(p.team), idLength)
	}
	if len(p.keyID) != idLength {
		return bad("the key id has %d characters: want the %d in the key file's name, AuthKey_<key id>.p8", len(p.keyID), idLength)
	}
	key, err := token.AuthKeyFromBytes([]byte(pem))
	switch {
	case errors.Is(err, token.ErrAuthKeyNotPem):
		return bad("the .p8 key is no PEM text: give the file as downloaded, from -----BEGIN PRIVATE KEY----- to its end")
	case err != nil:
		return bad("the .p8 key cannot be read, give the file as downloaded from Apple: %w", err)
	case key.Curve != elliptic.P256():
		return bad("the .p8 key is on curve %s: want Apple's own, on P-256", key.Curve.Params().Name)
	}
	p.key = key
	return nil
}

func (p *parsed) readCertificate(p12 []byte, password string) error {
	cert, err := certificate.FromP12Bytes(p12, password)
	if err != nil {
		return bad("the .p12 certificate cannot be read: check its password, export it with its private key, and with OpenSSL 3 as "+
			"openssl pkcs12 -export -legacy: %w", err)
	}
	p.certificate = &cert
	return nil
}
