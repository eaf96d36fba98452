package ingest

import (
	"context"
	"net/http"
	"time"

	"github.com/campanile-push/campanile/schemas"
)

// Log is the part of the event log that ingest writes to.
type Log interface {
	// Append returns nil once the log has everything that say said; after an error some of it may be there. say runs before
	// Append returns.
	Append(ctx context.Context, say func(out *schemas.Out)) error
	// Ends are the ends of a topic's partitions, read now.
	Ends(ctx context.Context, topic schemas.Topic) ([]int64, error)
	Layout() schemas.Layout
}

// Store is the part of the device store that ingest asks.
type Store interface {
	Lookup(ctx context.Context, devices []schemas.Device, need schemas.Watermark) ([]schemas.DeviceState, error)
	FindToken(ctx context.Context, app, token string, need schemas.Watermark) ([]schemas.Device, error)
	Estimate(ctx context.Context, app string, channels []string) (int64, error)
}

// Options of a Server. The zero value works, but for CatchUpApps.
type Options struct {
	// Now is the clock of events; nil is time.Now.
	Now func() time.Time
	// MaxBody is the largest body taken, in bytes; zero is 1 MiB. Moodle before 4.2 sends pushes of 10 kB and more.
	MaxBody int64
	// TrustedProxies are addresses and CIDRs whose X-Forwarded-For and X-Real-IP are believed; empty: nobody's.
	TrustedProxies []string
	// ProofPatience bounds the wait for the store before a push is answered; zero is 300 ms. Moodle hangs up after 2 s.
	ProofPatience time.Duration
	// RegisterPatience bounds the wait for the store where a registration or a deletion needs its answer; zero is 2 s.
	RegisterPatience time.Duration
	// CreatePatience is how long the store may stay behind before a missing registration is given up; zero is 5 s.
	CreatePatience time.Duration
	// AppendPatience bounds each wait for the log before 503; zero is 5 s. Moodle waits for a push for 2 s, but for a registration without
	// end. What was appended may be in the log even so, or come into it.
	AppendPatience time.Duration
	// Full says why the log takes nothing now; nil, or an answer of nil: it takes.
	Full func() error
	// CatchUpApps returns when every record of apps that was there at the call has been applied with ApplyApps. Without it, a
	// key that is not in memory is refused at once.
	CatchUpApps func(ctx context.Context) error
	// CatchUpBroadcasts is the same for broadcasts and ApplyBroadcasts. Without it, v3 knows of a broadcast what was applied so far.
	CatchUpBroadcasts func(ctx context.Context) error
	// RepeatWithin is for how long after a push or a broadcast of v1 and v2 another one that says the same under the same key is
	// taken for a client's repeat, and dropped. Zero: for no time, as AirNotifier does. At most schemas.MaxRepeatWithin.
	RepeatWithin time.Duration
	// Reads answers the reading half of /api/v3 to a key that may broadcast: about the app's broadcasts, those alone whose key is mine
	// where mine is not nil. Nil: such requests are answered 503.
	Reads func(w http.ResponseWriter, r *http.Request, app string, mine func(keyID string) bool)
	// Document is what /api/v3/openapi.json answers; empty: 404.
	Document []byte
	// IndexURL is where the page of `/` points people to; empty: nowhere.
	IndexURL string
	// KeysPerAddress limits /accesskeys/ for one address, and KeysPerURL for one URL asked for from one address: so many at once, and one
	// more each KeyInterval. Zero is 30, 5, one minute.
	KeysPerAddress, KeysPerURL int
	KeyInterval                time.Duration
	// MaxPendingKeys caps the keys of an app that wait for approval, each for PendingFor; zero is 1000 and 30 days.
	MaxPendingKeys int
	PendingFor     time.Duration
	// SiteCheckURL is asked about a site where an app's policy is the remote check: an https URL, to which siteid and url are
	// added as query parameters. Its answer is an integer as text; 0 is an unknown site.
	SiteCheckURL string
	// SiteCheckTransport reaches it; nil is http.DefaultTransport.
	SiteCheckTransport http.RoundTripper
}

// patientLog lets nobody wait for a log that does not answer.
type patientLog struct {
	Log
	patience time.Duration
}

func (l patientLog) Append(ctx context.Context, say func(out *schemas.Out)) error {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	return l.Log.Append(ctx, say)
}

func (l patientLog) Ends(ctx context.Context, topic schemas.Topic) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	return l.Log.Ends(ctx, topic)
}

func (o Options) withDefaults() Options {
	orDuration := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	orInt := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.RepeatWithin = min(max(o.RepeatWithin, 0), schemas.MaxRepeatWithin)
	if o.MaxBody <= 0 {
		o.MaxBody = 1 << 20
	}
	orDuration(&o.ProofPatience, 300*time.Millisecond)
	orDuration(&o.RegisterPatience, 2*time.Second)
	orDuration(&o.CreatePatience, 5*time.Second)
	orDuration(&o.AppendPatience, 5*time.Second)
	orDuration(&o.KeyInterval, time.Minute)
	orDuration(&o.PendingFor, 30*24*time.Hour)
	orInt(&o.KeysPerAddress, 30)
	orInt(&o.KeysPerURL, 5)
	orInt(&o.MaxPendingKeys, 1000)
	if o.SiteCheckTransport == nil {
		o.SiteCheckTransport = http.DefaultTransport
	}
	return o
}
