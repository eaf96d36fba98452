package api

import "time"

// Broadcast is a broadcast as the log has it. Exact once it has ended, about a second old before.
type Broadcast struct {
	ID               string    `json:"id"`
	App              string    `json:"app"`
	State            string    `json:"state"`
	Channels         []string  `json:"channels,omitempty"`
	Platforms        []string  `json:"platforms,omitempty"`
	KeyID            string    `json:"key_id,omitempty"`
	RequestedAt      time.Time `json:"requested_at"`
	SendAt           time.Time `json:"send_at,omitzero"`
	ExpiresAt        time.Time `json:"expires_at,omitzero"`
	EndedAt          time.Time `json:"ended_at,omitzero"`
	Rate             float64   `json:"rate,omitempty"`
	SpreadSeconds    int64     `json:"spread_seconds,omitempty"`
	AudienceEstimate int64     `json:"audience_estimate"`
	Paused           *Act      `json:"paused,omitempty"`
	Cancelled        *Act      `json:"cancelled,omitempty"`
	OtherRequests    int64     `json:"other_requests,omitempty"`
	Progress         Progress  `json:"progress"`
}

// Act is what somebody did to a broadcast.
type Act struct {
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// Progress is how far a broadcast has come, in pushes.
type Progress struct {
	Audience    int64               `json:"audience"`
	Expanded    int64               `json:"expanded"`
	Attempted   int64               `json:"attempted"`
	Delivered   int64               `json:"delivered"`
	Failed      int64               `json:"failed"`
	Invalid     int64               `json:"invalid"`
	Rejected    int64               `json:"rejected"`
	Expired     int64               `json:"expired"`
	Cancelled   int64               `json:"cancelled"`
	Finished    int64               `json:"finished"`
	Waiting     int64               `json:"waiting"`
	Remaining   int64               `json:"remaining"`
	Repeats     int64               `json:"repeats"`
	Rate        float64             `json:"rate"`
	LimitedBy   string              `json:"limited_by,omitempty"`
	SecondsLeft float64             `json:"seconds_left,omitempty"`
	Transports  []TransportProgress `json:"transports"`
}

// TransportProgress is a broadcast's progress on one transport.
type TransportProgress struct {
	Transport string `json:"transport"`
	Expanded  int64  `json:"expanded"`
	Attempted int64  `json:"attempted"`
	Delivered int64  `json:"delivered"`
	Invalid   int64  `json:"invalid"`
	Rejected  int64  `json:"rejected"`
	Expired   int64  `json:"expired"`
	Cancelled int64  `json:"cancelled"`
	Repeats   int64  `json:"repeats"`
	LimitedBy string `json:"limited_by,omitempty"`
}

// Accepted says that a broadcast is in the log, or how large its audience is.
type Accepted struct {
	ID               string   `json:"id,omitempty"`
	Status           string   `json:"status"`
	Channels         []string `json:"channels"`
	AudienceEstimate int64    `json:"audience_estimate"`
	DryRun           bool     `json:"dry_run,omitempty"`
}

// BroadcastList is a page of broadcasts, the newest first.
type BroadcastList struct {
	Broadcasts []Broadcast `json:"broadcasts"`
	Next       string      `json:"next,omitempty"`
}

// Update is one event of a broadcast's progress.
type Update struct {
	ID       string   `json:"id"`
	State    string   `json:"state"`
	Progress Progress `json:"progress"`
}

// Problem is an error (RFC 9457).
type Problem struct { //nolint:errname // RFC 9457's own word
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int64  `json:"status"`
	Detail string `json:"detail,omitempty"`
	Field  string `json:"field,omitempty"`
}

// Error is the problem for people to read.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}

// BroadcastRequest asks for a push to every device of some channels.
type BroadcastRequest struct {
	Channels      []string  `json:"channels,omitempty"`
	Platforms     []string  `json:"platforms,omitempty"`
	Message       *Message  `json:"message,omitempty"`
	SendAt        time.Time `json:"send_at,omitzero"`
	ExpiresAt     time.Time `json:"expires_at,omitzero"`
	Rate          float64   `json:"rate,omitempty"`
	SpreadSeconds int64     `json:"spread_seconds,omitempty"`
	DryRun        bool      `json:"dry_run,omitempty"`
}

// Message is what a device shows or gets.
type Message struct {
	Text             string            `json:"text,omitempty"`
	Title            string            `json:"title,omitempty"`
	Body             string            `json:"body,omitempty"`
	Data             map[string]string `json:"data,omitempty"`
	Sound            string            `json:"sound,omitempty"`
	Badge            *int64            `json:"badge,omitempty"`
	Category         string            `json:"category,omitempty"`
	ThreadID         string            `json:"thread_id,omitempty"`
	CollapseID       string            `json:"collapse_id,omitempty"`
	Priority         string            `json:"priority,omitempty"`
	ContentAvailable bool              `json:"content_available,omitempty"`
	MutableContent   bool              `json:"mutable_content,omitempty"`
	PushType         string            `json:"push_type,omitempty"`
	FCM              map[string]any    `json:"fcm,omitempty"`
	APNS             map[string]any    `json:"apns,omitempty"`
}

// NotificationRequest asks for a push to one device.
type NotificationRequest struct {
	Token       string    `json:"token"`
	Transport   string    `json:"transport,omitempty"`
	Platform    string    `json:"platform,omitempty"`
	Environment string    `json:"environment,omitempty"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	Message     Message   `json:"message"`
}

// AcceptedNotification says that a notification is in the log.
type AcceptedNotification struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// TokenRequest registers a device.
type TokenRequest struct {
	Transport   string   `json:"transport,omitempty"`
	Platform    string   `json:"platform,omitempty"`
	Environment string   `json:"environment,omitempty"`
	AppVersion  string   `json:"app_version,omitempty"`
	Locale      string   `json:"locale,omitempty"`
	TimeZone    string   `json:"time_zone,omitempty"`
	UserID      string   `json:"user_id,omitempty"`
	Channels    []string `json:"channels,omitzero"`
	Replaces    string   `json:"replaces,omitempty"`
}

// RegisteredToken says that a registration is in the log.
type RegisteredToken struct {
	Status   string   `json:"status"`
	Channels []string `json:"channels"`
}

// Reason is why a broadcast is paused or cancelled.
type Reason struct {
	Reason string `json:"reason,omitempty"`
}

// RateRequest is a broadcast's new rate.
type RateRequest struct {
	Rate float64 `json:"rate"`
}

// Controlled says that a control is in the log.
type Controlled struct {
	ID     string  `json:"id"`
	Status string  `json:"status"`
	Rate   float64 `json:"rate,omitempty"`
}
