// Package bench puts load on Campanile and measures it.
package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Moodle calls an AirNotifier API as Moodle's own plugin does: multipart forms for keys and registrations, JSON under a form's label for
// pushes. Unlike Moodle it keeps its connections.
type Moodle struct {
	BaseURL string // without a slash at the end
	App     string
	Key     string
	Client  *http.Client
}

// NewClient returns an HTTP client that keeps up to conns connections to one host.
func NewClient(conns int) *http.Client {
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			MaxIdleConns: conns, MaxIdleConnsPerHost: conns, IdleConnTimeout: time.Minute,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		},
	}
}

// Answer is a response, read whole.
type Answer struct {
	Status int
	ID     string // X-Campanile-Id
	Body   []byte
}

// Field is the string under a key of a JSON answer; "" where there is none.
func (a Answer) Field(key string) string {
	var m map[string]any
	if json.Unmarshal(a.Body, &m) != nil {
		return ""
	}
	s, _ := m[key].(string)
	return s
}

// expect turns any other status into an error that holds the answer's text.
func (a Answer) expect(status int, what string) error {
	if a.Status == status {
		return nil
	}
	return fmt.Errorf("%s: want %d, got %d %s", what, status, a.Status, bytes.TrimSpace(a.Body))
}

// With is the same client with another key.
func (m Moodle) With(key string) Moodle {
	m.Key = key
	return m
}

// RequestKey asks /accesskeys/ for a site's key.
func (m Moodle) RequestKey(ctx context.Context, siteURL, siteID string) (string, error) {
	body, contentType, err := form("url", siteURL, "siteid", siteID, "contact", "admin@"+strings.TrimPrefix(siteURL, "https://"), "description", siteURL)
	if err != nil {
		return "", err
	}
	a, err := m.With("none").Do(ctx, http.MethodPost, "/accesskeys/", contentType, body)
	if err != nil {
		return "", err
	}
	if err := a.expect(http.StatusOK, "request a key"); err != nil {
		return "", err
	}
	if key := a.Field("accesskey"); key != "" {
		return key, nil
	}
	return "", errors.New("request a key: the answer holds none")
}

// Register registers a token for a platform such as "Android-fcm" or "iOS-fcm", in a channel unless that is empty.
func (m Moodle) Register(ctx context.Context, token, platform, channel string) error {
	fields := []string{"device", platform}
	if channel != "" {
		fields = append(fields, "channel", channel)
	}
	body, contentType, err := form(fields...)
	if err != nil {
		return err
	}
	a, err := m.Do(ctx, http.MethodPost, "/tokens/"+url.PathEscape(token), contentType, body)
	if err != nil {
		return err
	}
	if status := a.Field("status"); status != "ok" && status != "token exists" {
		return fmt.Errorf("register: %d %s", a.Status, bytes.TrimSpace(a.Body))
	}
	return nil
}

// Push sends what Moodle sends for a forum post, and returns the answer whatever it is.
func (m Moodle) Push(ctx context.Context, token, platform, text string) (Answer, error) {
	body, err := json.Marshal(map[string]any{
		"device": platform,
		"token":  token,
		"extra": map[string]any{
			"processor": "moodle", "component": "mod_forum", "name": "posts", "notification": 1,
			"subject": text, "smallmessage": text, "sitefullname": "Campus", "site": "5f4dcc3b5aa765d61d8327deb882cf99",
			"contexturl": "https://moodle.example.org/mod/forum/discuss.php?d=7&token=9#p9", "encrypted": false,
			"userfromfullname": "Anne O'Neil", "userfromid": "3", "usertoid": "4",
		},
	})
	if err != nil {
		return Answer{}, err
	}
	return m.Do(ctx, http.MethodPost, "/api/v2/push/", "application/x-www-form-urlencoded", body)
}

// Broadcast sends text to a channel (empty: the key's own) and returns the broadcast's id.
func (m Moodle) Broadcast(ctx context.Context, channel, text string) (string, error) {
	fields := map[string]any{"alert": map[string]string{"title": "Campus", "body": text}}
	if channel != "" {
		fields["channel"] = channel
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return "", err
	}
	a, err := m.Do(ctx, http.MethodPost, "/api/v2/broadcast/", "application/json", body)
	if err != nil {
		return "", err
	}
	return a.ID, a.expect(http.StatusAccepted, "broadcast")
}

// Do sends one request with the headers that AirNotifier's clients send.
func (m Moodle) Do(ctx context.Context, method, path, contentType string, body []byte) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, m.BaseURL+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Content-Type", contentType)
	r.Header.Set("User-Agent", "MoodleBot/5.1 (+https://moodle.example.org)")
	r.Header.Set("X-AN-APP-NAME", m.App)
	r.Header.Set("X-AN-APP-KEY", m.Key)
	response, err := m.Client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return Answer{response.StatusCode, response.Header.Get("X-Campanile-Id"), text}, err
}

// form encodes pairs of names and values as curl encodes an array of POSTFIELDS.
func form(pairs ...string) (body []byte, contentType string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i+1 < len(pairs); i += 2 {
		if err := w.WriteField(pairs[i], pairs[i+1]); err != nil {
			return nil, "", err
		}
	}
	err = w.Close()
	return b.Bytes(), w.FormDataContentType(), err
}
