package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client speaks to the admin API of a simulator in any process. Safe for concurrent use; nothing to close.
type Client struct {
	base string
	http *http.Client
}

// NewClient speaks to the admin API at base, such as http://127.0.0.1:9120. A nil client is one with a minute's patience.
func NewClient(base string, client *http.Client) *Client {
	if client == nil {
		client = &http.Client{Timeout: time.Minute}
	}
	return &Client{strings.TrimSuffix(base, "/"), client}
}

// Summary is what the ledger holds.
func (c *Client) Summary(ctx context.Context) (s Summary, err error) {
	return s, c.do(ctx, http.MethodGet, "/ledger", nil, &s)
}

// Stats is what was answered.
func (c *Client) Stats(ctx context.Context) (s Stats, err error) {
	return s, c.do(ctx, http.MethodGet, "/stats", nil, &s)
}

// Identity says where the simulator is and what it trusts.
func (c *Client) Identity(ctx context.Context) (id Identity, err error) {
	return id, c.do(ctx, http.MethodGet, "/identity", nil, &id)
}

// ServiceAccount is the credentials file of an FCM project; "" is the default one.
func (c *Client) ServiceAccount(ctx context.Context, project string) ([]byte, error) {
	var text json.RawMessage
	err := c.do(ctx, http.MethodGet, "/service-account?project="+url.QueryEscape(project), nil, &text)
	return text, err
}

// NewAPNSKey issues another APNs key.
func (c *Client) NewAPNSKey(ctx context.Context, k APNSKey) (issued APNSKey, err error) {
	return issued, c.do(ctx, http.MethodPost, "/keys", k, &issued)
}

// Counts is how many pushes each token got, in the order of tokens.
func (c *Client) Counts(ctx context.Context, p Provider, tokens []string) (counts []int, err error) {
	return counts, c.do(ctx, http.MethodPost, "/ledger/counts", tokenList{Provider: p, Tokens: tokens}, &counts)
}

// Pushes are the last accepted pushes that match, where the simulator keeps them.
func (c *Client) Pushes(ctx context.Context, f PushFilter) (pushes []Push, err error) {
	q := url.Values{}
	for name, value := range map[string]string{"provider": string(f.Provider), "app": f.App, "token": f.Token, "id": f.ID} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return pushes, c.do(ctx, http.MethodGet, "/pushes?"+q.Encode(), nil, &pushes)
}

// Export copies the ledger as CSV to w.
func (c *Client) Export(ctx context.Context, w io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/ledger/export", nil)
	if err != nil {
		return fmt.Errorf("export the ledger: %w", err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("export the ledger: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("export the ledger: status %d", answer.StatusCode)
	}
	if _, err := io.Copy(w, answer.Body); err != nil {
		return fmt.Errorf("export the ledger: %w", err)
	}
	return nil
}

// SetScenario replaces scenario and rules.
func (c *Client) SetScenario(ctx context.Context, s Scenario) error {
	return c.do(ctx, http.MethodPut, "/scenario", s, nil)
}

// SetRules replaces the rules.
func (c *Client) SetRules(ctx context.Context, rules ...Rule) error {
	if rules == nil {
		rules = []Rule{}
	}
	return c.do(ctx, http.MethodPut, "/rules", rules, nil)
}

// AddRules puts rules in front of those that are there.
func (c *Client) AddRules(ctx context.Context, rules ...Rule) error {
	return c.do(ctx, http.MethodPost, "/rules", rules, nil)
}

// RemoveRules removes the rules of that name.
func (c *Client) RemoveRules(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/rules?name="+url.QueryEscape(name), nil, nil)
}

// Kill makes devices dead since then; the zero time is the moment of each push. APNs answers 410 with that time.
func (c *Client) Kill(ctx context.Context, p Provider, since time.Time, tokens ...string) error {
	t := tokenList{Provider: p, Tokens: tokens}
	if !since.IsZero() {
		t.SinceMS = since.UnixMilli()
	}
	return c.do(ctx, http.MethodPost, "/kill", t, nil)
}

// Revive makes devices live, whatever the mix, a marker or Kill says.
func (c *Client) Revive(ctx context.Context, p Provider, tokens ...string) error {
	return c.do(ctx, http.MethodPost, "/revive", tokenList{Provider: p, Tokens: tokens}, nil)
}

// Brownout answers every push of a provider ("": of both) with a reason ("": unavailable) for a while.
func (c *Client) Brownout(ctx context.Context, p Provider, reason string, d time.Duration) error {
	return c.do(ctx, http.MethodPost, "/brownout", trouble{p, reason, Duration(d)}, nil)
}

// Refuse resets new connections to a provider ("": to both) for a while.
func (c *Client) Refuse(ctx context.Context, p Provider, d time.Duration) error {
	return c.do(ctx, http.MethodPost, "/refuse", trouble{Provider: p, For: Duration(d)}, nil)
}

// FailTLS breaks TLS handshakes with a provider ("": with both) for a while.
func (c *Client) FailTLS(ctx context.Context, p Provider, d time.Duration) error {
	return c.do(ctx, http.MethodPost, "/tls-failure", trouble{Provider: p, For: Duration(d)}, nil)
}

// Reset forgets some of ledger, pushes, stats, rules and tokens; without a name all of it.
func (c *Client) Reset(ctx context.Context, what ...string) error {
	return c.do(ctx, http.MethodPost, "/reset?what="+url.QueryEscape(strings.Join(what, ",")), nil, nil)
}

func (c *Client) do(ctx context.Context, method, path string, body, into any) error {
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("simulator, %s %s: %w", method, path, err)
		}
		text = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, text)
	if err != nil {
		return fmt.Errorf("simulator, %s %s: %w", method, path, err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("simulator, %s %s: %w", method, path, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusMultipleChoices {
		why, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return fmt.Errorf("simulator, %s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(why))
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		return fmt.Errorf("simulator, %s %s: %w", method, path, err)
	}
	return nil
}
