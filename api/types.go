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
}

// Accepted says that a broadcast is in the log, or how large its audience is.
type Accepted struct {
	ID               string   `json:"id,omitempty"`
	Status           string   `json:"status"`
	Channels         []string `json:"channels"`
	AudienceEstimate int64    `json:"audience_estimate"`
	DryRun           bool     `json:"dry_run,omitempty"`
}
