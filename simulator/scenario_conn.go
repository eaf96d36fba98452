package simulator

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// ConnScenario is how a provider treats connections. What is marked with a star needs the server "frames", and takes effect on
// connections made afterwards; the others do at once, and Streams with net/http at the start alone.
type ConnScenario struct {
	Streams      int      `json:"streams,omitempty" yaml:"streams"`             // at once on a connection: 1000 at APNs, 100 at FCM
	FirstStreams int      `json:"first_streams,omitempty" yaml:"first_streams"` // * until a push with good credentials; 0: as Streams
	Shrink       bool     `json:"shrink,omitempty" yaml:"shrink"`               // * refusals but 410 halve the streams, a batch without doubles them
	Window       int      `json:"window,omitempty" yaml:"window"`               // * of a stream for sending, bytes: 65535
	ConnWindow   int      `json:"conn_window,omitempty" yaml:"conn_window"`     // * of a connection for sending, bytes: 16 MiB; at least 65535
	Max          int      `json:"max,omitempty" yaml:"max"`                     // open at once, more are reset; 0: any number
	IdleClose    Duration `json:"idle_close,omitempty" yaml:"idle_close"`       // * after so long without a push; 0: never
	BadTokens    int      `json:"bad_tokens,omitempty" yaml:"bad_tokens"`       // so many bad tokens on a connection end it; 0: never
	Latency      Latency  `json:"latency,omitzero" yaml:"latency"`              // on top, picked once for each connection
}

const (
	apnsStreams       = 1000     // SETTINGS_MAX_CONCURRENT_STREAMS; what APNs typically grants
	fcmStreams        = 100      // what FCM's front end grants
	defaultConnWindow = 16 << 20 // bytes
	mostStreams       = 1 << 20
)

func (c *ConnScenario) validate() error {
	switch {
	case c.Streams < 0 || c.FirstStreams < 0 || c.Streams > mostStreams || c.FirstStreams > mostStreams:
		return fmt.Errorf("streams and first_streams are 0 to %d", mostStreams)
	case c.Window < 0 || c.Window > largestWindow || c.ConnWindow != 0 && (c.ConnWindow < defaultWindow || c.ConnWindow > largestWindow):
		return errors.New("window is 1 to 2147483647 and conn_window 65535 to 2147483647 bytes; 0 is the default")
	case c.Max < 0 || c.IdleClose < 0 || c.BadTokens < 0:
		return errors.New("max, idle_close and bad_tokens are 0 or more")
	}
	return nil
}

// connections are a provider's; zero fields are the defaults still.
func (s *Scenario) connections(p Provider) *ConnScenario {
	if p == FCM {
		return &s.FCM.Connections
	}
	return &s.APNS.Connections
}

func (s *Scenario) perDevice(p Provider) int {
	if p == FCM {
		return s.FCM.PerDevice
	}
	return s.APNS.PerDevice
}

// streams is how many a connection may have at once.
func (s *Scenario) streams(p Provider) int {
	if n := s.connections(p).Streams; n > 0 {
		return n
	}
	if p == FCM {
		return fcmStreams
	}
	return apnsStreams
}

// latencyOf is the general latency of a push.
func (s *Scenario) latencyOf(p *Push) time.Duration {
	if s.Latency == (Latency{}) {
		return 0
	}
	return s.Latency.Of(pushSeed(s.Seed, p))
}

// needsFrames says what of a scenario net/http cannot do; nil: nothing.
func (s *Scenario) needsFrames() error {
	for _, c := range []*ConnScenario{&s.APNS.Connections, &s.FCM.Connections} {
		if c.FirstStreams != 0 || c.Shrink || c.Window != 0 || c.ConnWindow != 0 || c.IdleClose != 0 {
			return errors.New(`first_streams, shrink, window, conn_window and idle_close need the server "frames"`)
		}
	}
	return rulesNeedFrames(s.Rules)
}

func rulesNeedFrames(rules []Rule) error {
	for i := range rules {
		if slices.Contains(frameFaults, rules[i].Fault) {
			return fmt.Errorf(`the fault %s needs the server "frames"`, rules[i].Fault)
		}
	}
	return nil
}
