package senders

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/vault"
)

// GCPercent is how much the heap of a process of senders alone may grow between two garbage collections, in percent (debug.SetGCPercent),
// where they push through closet h2: a push leaves 0.1 kB of garbage and most of the heap has no pointers, so that collecting three
// times as often costs little: some 13 MB less for 0.2 µs a push.
const GCPercent = 30

// Options are what New needs. Those under "Defaults" may be zero.
type Options struct {
	Transport schemas.Transport
	Lane      schemas.Lane
	// Open makes a Provider for an account, without waiting for the network. An error parks the account until its credentials
	// change or the next probe.
	Open    func(ctx context.Context, a Account) (Provider, error)
	Keyring *vault.Keyring
	Hasher  vault.Hasher
	Catalog *Catalog
	// CatchUpApps and CatchUpBroadcasts return when ApplyApps and Catalog.ApplyBroadcasts have been given their topics up to the
	// ends as read after the call. They are called by one goroutine each.
	CatchUpApps, CatchUpBroadcasts func(ctx context.Context) error
	Log                            *slog.Logger
	Metrics                        prometheus.Registerer

	// Defaults.

	Now func() time.Time // time.Now
	// Tiers are the delays of the retry topics: 10 s, 1 min, 15 min, and 30 s for the re-check of parked apps.
	Tiers []time.Duration
	// MaxAge is how long a message without an expiry is tried: 24 h.
	MaxAge time.Duration
	// Window is the most pushes in flight over all apps: 4,000. One app gets at most half of it while it is alone, and less where
	// there are others; and fewer while its provider answers late.
	Window int
	// Rate is an app's limit in this sender, in pushes a second: none.
	Rate float64
	// Quotas are shared by the senders of a transport's lanes. Nil: its own, and without Rate that of an FCM project is 10,000.
	Quotas *Quotas
	// MaxWait is how long a send may wait in memory for its turn; what would wait longer goes to a tier: 2 s on the direct lane;
	// 15 s on the lanes of broadcasts, where the routers keep what is ahead small.
	MaxWait time.Duration
	// FloodLeast and FloodShare say when a minute's bad-token answers are a sign of wrong credentials: at least 20, and more
	// than half of all answers.
	FloodLeast int
	FloodShare float64
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Transport != schemas.APNS && o.Transport != schemas.FCM:
		return o, errors.New("senders: the transport must be apns or fcm")
	case !slices.Contains(schemas.Lanes, o.Lane):
		return o, errors.New("senders: the lane must be direct, express or bulk")
	case o.Open == nil, o.Keyring == nil, o.Catalog == nil, o.CatchUpApps == nil, o.CatchUpBroadcasts == nil:
		return o, errors.New("senders: Open, Keyring, Catalog, CatchUpApps and CatchUpBroadcasts must be set")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Tiers == nil {
		o.Tiers = []time.Duration{10 * time.Second, time.Minute, 15 * time.Minute, 30 * time.Second}
	}
	if len(o.Tiers) != schemas.Tiers {
		return o, errors.New("senders: want one delay for each of the four tiers")
	}
	for i, d := range o.Tiers {
		if d <= 0 || i > 0 && i < schemas.Tiers-1 && d < o.Tiers[i-1] {
			return o, errors.New("senders: the tiers' delays must be positive and in order")
		}
	}
	setDefault(&o.MaxAge, 24*time.Hour)
	setDefault(&o.Window, 4000)
	if o.Lane != schemas.Direct {
		setDefault(&o.MaxWait, 15*time.Second)
	}
	setDefault(&o.MaxWait, 2*time.Second)
	setDefault(&o.FloodLeast, floodLeast)
	setDefault(&o.FloodShare, floodShare)
	if o.Quotas == nil {
		quotas := QuotaOptions{}
		if o.Transport == schemas.FCM && o.Rate <= 0 {
			quotas.Rate = FCMQuota
		}
		o.Quotas = NewQuotas(quotas)
	}
	return o, nil
}

func setDefault[T int | float64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

func (o Options) policy() policy {
	p := policy{maxAge: o.MaxAge.Microseconds()}
	for i, d := range o.Tiers {
		p.tiers[i] = d.Microseconds()
	}
	return p
}
