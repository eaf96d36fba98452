// Code generated from openapi.json by api/generate. DO NOT EDIT.

package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// ListBroadcasts is GET /broadcasts: list broadcasts, the newest first; with a site's key the site's own.
func (c *Client) ListBroadcasts(ctx context.Context, state string, limit int, before string) (result BroadcastList, err error) {
	r := call{method: http.MethodGet, path: "/broadcasts", query: url.Values{}, header: http.Header{}}
	if state != "" {
		r.query.Set("state", state)
	}
	if limit != 0 {
		r.query.Set("limit", strconv.Itoa(limit))
	}
	if before != "" {
		r.query.Set("before", before)
	}
	err = c.do(ctx, &r, nil, &result)
	return result, err
}

// SendBroadcast is POST /broadcasts: push to every device of some channels.
func (c *Client) SendBroadcast(ctx context.Context, idempotencyKey string, body BroadcastRequest) (result Accepted, err error) {
	r := call{method: http.MethodPost, path: "/broadcasts", query: url.Values{}, header: http.Header{}}
	if idempotencyKey != "" {
		r.header.Set("Idempotency-Key", idempotencyKey)
	}
	err = c.do(ctx, &r, body, &result)
	return result, err
}

// GetBroadcast is GET /broadcasts/{id}: one broadcast.
func (c *Client) GetBroadcast(ctx context.Context, id string) (result Broadcast, err error) {
	r := call{method: http.MethodGet, path: "/broadcasts/" + url.PathEscape(id), query: url.Values{}, header: http.Header{}}
	err = c.do(ctx, &r, nil, &result)
	return result, err
}

// CancelBroadcast is POST /broadcasts/{id}/cancel: end a broadcast for ever.
func (c *Client) CancelBroadcast(ctx context.Context, id string, body Reason) (result Controlled, err error) {
	r := call{method: http.MethodPost, path: "/broadcasts/" + url.PathEscape(id) + "/cancel", query: url.Values{}, header: http.Header{}}
	err = c.do(ctx, &r, body, &result)
	return result, err
}

// PauseBroadcast is POST /broadcasts/{id}/pause: stop expanding; what was expanded drains.
func (c *Client) PauseBroadcast(ctx context.Context, id string, body Reason) (result Controlled, err error) {
	r := call{method: http.MethodPost, path: "/broadcasts/" + url.PathEscape(id) + "/pause", query: url.Values{}, header: http.Header{}}
	err = c.do(ctx, &r, body, &result)
	return result, err
}

// GetProgress is GET /broadcasts/{id}/progress: how far a broadcast has come; as server-sent events where the caller accepts them.
func (c *Client) GetProgress(ctx context.Context, id string) (result Update, err error) {
	r := call{method: http.MethodGet, path: "/broadcasts/" + url.PathEscape(id) + "/progress", query: url.Values{}, header: http.Header{}}
	err = c.do(ctx, &r, nil, &result)
	return result, err
}

// ChangeRate is POST /broadcasts/{id}/rate: change how many pushes a second a broadcast may take.
func (c *Client) ChangeRate(ctx context.Context, id string, body RateRequest) (result Controlled, err error) {
	r := call{method: http.MethodPost, path: "/broadcasts/" + url.PathEscape(id) + "/rate", query: url.Values{}, header: http.Header{}}
	err = c.do(ctx, &r, body, &result)
	return result, err
}

// ResumeBroadcast is POST /broadcasts/{id}/resume: go on with a paused broadcast.
func (c *Client) ResumeBroadcast(ctx context.Context, id string) (result Controlled, err error) {
	r := call{method: http.MethodPost, path: "/broadcasts/" + url.PathEscape(id) + "/resume", query: url.Values{}, header: http.Header{}}
	err = c.do(ctx, &r, nil, &result)
	return result, err
}

// Unsubscribe is DELETE /channels/{channel}/tokens/{token}: take a device out of a channel.
func (c *Client) Unsubscribe(ctx context.Context, channel string, token string) error {
	r := call{method: http.MethodDelete, path: "/channels/" + url.PathEscape(channel) + "/tokens/" + url.PathEscape(token), query: url.Values{}, header: http.Header{}}
	return c.do(ctx, &r, nil, nil)
}

// Subscribe is PUT /channels/{channel}/tokens/{token}: put a device into a channel.
func (c *Client) Subscribe(ctx context.Context, channel string, token string) error {
	r := call{method: http.MethodPut, path: "/channels/" + url.PathEscape(channel) + "/tokens/" + url.PathEscape(token), query: url.Values{}, header: http.Header{}}
	return c.do(ctx, &r, nil, nil)
}

// SendNotification is POST /notifications: push to one device.
func (c *Client) SendNotification(ctx context.Context, idempotencyKey string, body NotificationRequest) (result AcceptedNotification, err error) {
	r := call{method: http.MethodPost, path: "/notifications", query: url.Values{}, header: http.Header{}}
	if idempotencyKey != "" {
		r.header.Set("Idempotency-Key", idempotencyKey)
	}
	err = c.do(ctx, &r, body, &result)
	return result, err
}

// DeleteToken is DELETE /tokens/{token}: remove a device, or with a site's key the site's own subscription.
func (c *Client) DeleteToken(ctx context.Context, token string) error {
	r := call{method: http.MethodDelete, path: "/tokens/" + url.PathEscape(token), query: url.Values{}, header: http.Header{}}
	return c.do(ctx, &r, nil, nil)
}

// PutToken is PUT /tokens/{token}: register a device, or say again that it lives.
func (c *Client) PutToken(ctx context.Context, token string, body TokenRequest) (result RegisteredToken, err error) {
	r := call{method: http.MethodPut, path: "/tokens/" + url.PathEscape(token), query: url.Values{}, header: http.Header{}}
	err = c.do(ctx, &r, body, &result)
	return result, err
}
