package ingest

import (
	"context"
	"crypto/md5" //nolint:gosec // md5(wwwroot) is the channel's name that phones and Moodle agreed on, and protects nothing.
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	siteCheckTimeout = 3 * time.Second
	maxSiteAnswer    = 64 // bytes; an integer as text
)

// siteChannel is the channel that the proven claim of a site owns, and phones may name: md5 of wwwroot, which is written without a
// slash at the end.
func siteChannel(wwwroot string) string {
	sum := md5.Sum([]byte(strings.TrimRight(wwwroot, "/"))) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// claimChannel is a claim's own channel: the same for whoever comes with the same URL and siteid again. It tells nothing
// of the siteid without a guess of it. A claim without a siteid is nobody's but this one key's.
func claimChannel(app, wwwroot, siteid string) string {
	h := sha256.New()
	_, _ = io.WriteString(h, "campanile claim\x00"+app+"\x00"+wwwroot+"\x00"+siteid)
	if siteid == "" {
		var nonce [16]byte
		_, _ = rand.Read(nonce[:])
		_, _ = h.Write(nonce[:])
	}
	return "site-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// siteCheck asks the operator's service whether a siteid belongs to a URL.
type siteCheck struct {
	url    string
	client *http.Client
}

var errNoSiteCheck = errors.New("the app asks for a remote check, and no site check URL is configured")

func newSiteCheck(o Options) *siteCheck {
	return &siteCheck{o.SiteCheckURL, &http.Client{
		Transport: o.SiteCheckTransport,
		Timeout:   siteCheckTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // the operator's address and no other
		},
	}}
}

// ask reports whether the service knows the site. An error means that it did not say.
func (s *siteCheck) ask(ctx context.Context, siteid, wwwroot string) (bool, error) {
	if s.url == "" {
		return false, errNoSiteCheck
	}
	u, err := url.Parse(s.url)
	if err != nil {
		return false, fmt.Errorf("site check URL: %w", err)
	}
	q := u.Query()
	q.Set("siteid", siteid)
	q.Set("url", wwwroot)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return false, fmt.Errorf("site check: %w", err)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return false, fmt.Errorf("site check: %w", hideURL(err))
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxSiteAnswer))
	if err != nil {
		return false, fmt.Errorf("site check: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(body)))
	if res.StatusCode != http.StatusOK || err != nil {
		return false, fmt.Errorf("site check: status %d, and no integer", res.StatusCode)
	}
	return n != 0, nil
}

// hideURL drops the URL of a client's error: it holds the siteid.
func hideURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}
