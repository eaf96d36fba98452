// Package contracttest is AirNotifier's contract as a list of requests and answers, contract.json: what the handlers' test asks and what
// PHP's curl asks of the binary are the same.
package contracttest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed contract.json
var document []byte

// Contract is what stands before the first request, and the requests in their order: later ones find what earlier ones left.
type Contract struct {
	// App is whom a case calls that names no app.
	App string `json:"app"`
	// Apps are the settings of every app, in the words of AirNotifier or of ours.
	Apps map[string]App `json:"apps"`
	// Keys are access keys by the names that the cases give them.
	Keys map[string]Key `json:"keys"`
	// Dead are tokens of FCM in App that Google has given up.
	Dead []string `json:"dead"`
	// TrustedProxies and KnownSite are settings of the server: whose X-Forwarded-For is believed, and the siteid that the remote check knows.
	TrustedProxies []string          `json:"trusted_proxies"`
	KnownSite      string            `json:"known_site"`
	Tokens         map[string]string `json:"tokens"` // for <<name>> in the cases
	Sections       []Section         `json:"sections"`
}

// App is an app's settings. Policy is one of open, allow-list, remote-check and manual; empty is open.
type App struct {
	BlockedIPList string   `json:"blockediplist"`
	Policy        string   `json:"policy"`
	AllowedSites  []string `json:"allowed_sites"`
	MayNot        bool     `json:"site_keys_cannot_register"`
}

// Key is an operator's key.
type Key struct {
	App         string `json:"app"`
	Value       string `json:"value"`
	Permissions uint32 `json:"permissions"`
}

// Section is one of the contract's.
type Section struct {
	Title string `json:"section"`
	Cases []Case `json:"cases"`
}

// Case is one request, and what must come of it.
type Case struct {
	Says    string             `json:"says"`
	Ask     string             `json:"ask"`     // method and path
	App     *string            `json:"app"`     // absent: the contract's; "-": no such header
	Key     string             `json:"key"`     // a name of Keys or of an earlier Keep, else the value itself; "-": no such header
	Headers map[string]string  `json:"headers"` // further ones
	Fields  *[][2]string       `json:"fields"`  // multipart/form-data, as PHP's curl makes of an array
	Form    *string            `json:"form"`    // application/x-www-form-urlencoded, as it stands
	JSON    json.RawMessage    `json:"json"`    // under a form's label, as Moodle sends it
	Raw     *string            `json:"raw"`     // the same, for what is no JSON
	Label   string             `json:"label"`   // of JSON and Raw, in place of a form's
	Want    int                `json:"want"`    // status
	Body    *string            `json:"body"`    // of the answer; absent: empty
	Match   string             `json:"match"`   // a regular expression for all of it, in place of Body
	HTML    bool               `json:"html"`    // the answer is no JSON
	Keep    string             `json:"keep"`    // the name of the access key in the answer
	Pushes  map[string]any     `json:"pushes"`  // what stands in the log of an accepted push
	Device  *Device            `json:"device"`  // what the store holds afterwards
	Sends   *Broadcast         `json:"sends"`   // what stands in the log of an accepted broadcast
	Grants  *struct{ May int } `json:"grants"`  // the permissions of the key in the answer
	section string
}

// Device is a token in the store: its transport, its platform as it was sent, its channels sorted. A channel "=name" is that of the claim
// of a kept key. Transport "" says that it is not there.
type Device struct {
	Token     string   `json:"token"`
	Transport string   `json:"transport"`
	Platform  string   `json:"platform"`
	Channels  []string `json:"channels"`
}

// Broadcast is whom one goes to.
type Broadcast struct {
	Channels  []string `json:"channels"`
	Platforms []string `json:"platforms"`
}

// Section is the title of the section that c stands in.
func (c *Case) Section() string { return c.section }

// Load reads the contract, and replaces <<name>> and <<text*count>>.
func Load() (*Contract, error) {
	var named struct{ Tokens map[string]string }
	if err := json.Unmarshal(document, &named); err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	text, err := expand(document, named.Tokens)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	c := &Contract{}
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	said := map[string]bool{}
	for i := range c.Sections {
		s := &c.Sections[i]
		for j := range s.Cases {
			s.Cases[j].section = s.Title
			if name := s.Title + s.Cases[j].Says; said[name] {
				return nil, fmt.Errorf("the contract says twice: %s", name)
			} else {
				said[name] = true
			}
		}
	}
	return c, nil
}

// Cases are those of every section, in order.
func (c *Contract) Cases() (all []*Case) {
	for i := range c.Sections {
		for j := range c.Sections[i].Cases {
			all = append(all, &c.Sections[i].Cases[j])
		}
	}
	return all
}

var placeholder = regexp.MustCompile(`<<([^<>*]+)(?:\*([0-9]+))?>>`)

func expand(text []byte, tokens map[string]string) ([]byte, error) {
	var failed []error
	out := placeholder.ReplaceAllFunc(text, func(found []byte) []byte {
		m := placeholder.FindSubmatch(found)
		if len(m[2]) > 0 {
			n, err := strconv.Atoi(string(m[2]))
			failed = append(failed, err)
			return bytes.Repeat(m[1], n)
		}
		token, ok := tokens[string(m[1])]
		if !ok {
			failed = append(failed, fmt.Errorf("the contract names no token %q: it has %v", m[1], slices.Sorted(maps.Keys(tokens))))
		}
		return []byte(token)
	})
	return out, errors.Join(failed...)
}

// Answer is what came of a case.
type Answer struct {
	Status int    `json:"status"`
	Type   string `json:"type"` // Content-Type
	ID     string `json:"id"`   // X-Campanile-Id
	Body   string `json:"body"`
}

// Check compares an answer with what the case wants.
func (c *Case) Check(a *Answer) error {
	var wrong []string
	if a.Status != c.Want {
		wrong = append(wrong, fmt.Sprintf("want status %d, got %d", c.Want, a.Status))
	}
	body := ""
	if c.Body != nil {
		body = *c.Body
	}
	switch {
	case c.Match != "":
		if re, err := regexp.Compile(`(?s)\A(?:` + c.Match + `)\z`); err != nil {
			return err
		} else if !re.MatchString(a.Body) {
			wrong = append(wrong, fmt.Sprintf("want a body like %s, got %s", c.Match, a.Body))
		}
	case a.Body != body:
		wrong = append(wrong, fmt.Sprintf("want the body %q, got %q", body, a.Body))
	}
	kind := "application/json; charset=utf-8"
	if c.HTML {
		kind = "text/html; charset=utf-8"
	}
	if a.Type != kind {
		wrong = append(wrong, fmt.Sprintf("want the type %q, also when empty, got %q", kind, a.Type))
	}
	if a.Status == 202 && a.ID == "" {
		wrong = append(wrong, "202 without X-Campanile-Id")
	}
	if wrong == nil {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}
