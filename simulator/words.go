package simulator

import (
	"fmt"
	"time"
)

// Provider is the push service that a request was meant for.
type Provider string

// The providers.
const (
	APNS Provider = "apns"
	FCM  Provider = "fcm"
)

// The environments of APNs. FCM has none.
const (
	Production = "production"
	Sandbox    = "sandbox"
)

// service is provider and environment in a byte, as the ledger's file holds it: never renumber.
type service uint8

const (
	serviceAPNS    service = 1
	serviceSandbox service = 2
	serviceFCM     service = 3
)

func (s service) provider() Provider {
	if s == serviceFCM {
		return FCM
	}
	return APNS
}

func (s service) environment() string {
	switch s {
	case serviceAPNS:
		return Production
	case serviceSandbox:
		return Sandbox
	case serviceFCM:
	}
	return ""
}

// Duration is a time.Duration that reads and writes Go's text form ("150ms") in YAML and JSON.
type Duration time.Duration

// MarshalText writes the form of time.Duration.String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads the form of time.ParseDuration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration: want a number and a unit, such as 150ms, 3s or 1h", text)
	}
	*d = Duration(v)
	return nil
}

// D is the value as the standard library has it.
func (d Duration) D() time.Duration { return time.Duration(d) }
