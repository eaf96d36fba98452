package fcm

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"

	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/jwt"

	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
	"github.com/campanile-push/campanile/senders"
)

// scope is what FCM asks of an access token.
const scope = "https://www.googleapis.com/auth/firebase.messaging"

// CheckCredentials says whether credentials can be used, and if not, what to do. It asks nobody: whether Google accepts them, only
// a push can tell. The error wraps senders.ErrCredentials.
func CheckCredentials(c *pushv1.FcmCredentials) error {
	_, _, err := parse(c)
	return err
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{senders.ErrCredentials}, args...)...)
}

// parse reads a service account, and the project that it pushes for.
func parse(c *pushv1.FcmCredentials) (*jwt.Config, string, error) {
	const where = "create one in Firebase's console under Project settings, Service accounts, Generate new private key"
	if c.GetServiceAccountJson() == "" {
		return nil, "", bad("no service account: %s", where)
	}
	var account struct {
		Type       string `json:"type"`
		ProjectID  string `json:"project_id"`
		PrivateKey string `json:"private_key"`
		Email      string `json:"client_email"`
		TokenURI   string `json:"token_uri"`
	}
	if err := json.Unmarshal([]byte(c.GetServiceAccountJson()), &account); err != nil {
		return nil, "", bad("the service account is no JSON (%w): give the file as downloaded, or %s", err, where)
	}
	switch {
	case account.Type != "service_account":
		return nil, "", bad("the JSON is of type %q, not \"service_account\": %s", account.Type, where)
	case account.Email == "" || account.PrivateKey == "":
		return nil, "", bad("the service account has no client_email or private_key: give the file as downloaded")
	}
	project := c.GetProjectId()
	if project == "" {
		project = account.ProjectID
	}
	if project == "" || url.PathEscape(project) != project {
		return nil, "", bad("%q is no project id: give the one of Firebase's Project settings", project)
	}
	if u, err := url.Parse(account.TokenURI); account.TokenURI != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		return nil, "", bad("token_uri %q is no https address", account.TokenURI)
	}
	if err := checkKey(account.PrivateKey); err != nil {
		return nil, "", err
	}
	config, err := google.JWTConfigFromJSON([]byte(c.GetServiceAccountJson()), scope)
	if err != nil {
		return nil, "", bad("the service account cannot be used: %w", err)
	}
	return config, project, nil
}

func checkKey(text string) error {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return bad("the service account's private_key is no PEM text: give the file as downloaded")
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		if _, err1 := x509.ParsePKCS1PrivateKey(block.Bytes); err1 != nil {
			return bad("the service account's private_key cannot be read: %w", err)
		}
	}
	return nil
}
