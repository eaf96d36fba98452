package eventlog_test

import (
	"testing"
	"time"

	"github.com/campanile-push/campanile/eventlog"
	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

func TestWhatIsUnreadHalfWayToItsDeletionIsAtRisk(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		spec, _ := schemas.SpecOf(schemas.Deliveries)
		for _, p := range []int32{0, 2} {
			err := l.Append(t.Context(), func(out *schemas.Out) {
				for range 10 {
					out.DeliveryFinished(p, 1, &pushv1.DeliveryFinished{App: "app"})
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		sendTo(t, l, 1, 5) // kept until it is read, so never at risk
		commitFor(t, cfg, schemas.GroupTally, schemas.Deliveries, 0, 10)
		commitFor(t, cfg, schemas.GroupTally, schemas.Deliveries, 2, 9)
		for _, c := range []struct {
			age              time.Duration
			tally, analytics int
		}{
			{0, 0, 0},
			{spec.Retention/2 - time.Hour, 0, 0},
			{spec.Retention/2 + time.Hour, 1, 2},
		} {
			risk, err := l.AtRisk(t.Context(), time.Now().Add(c.age))
			if err != nil {
				t.Fatal(err)
			}
			if tally, analytics := risk[schemas.GroupTally][schemas.Deliveries], risk[schemas.GroupAnalytics][schemas.Deliveries]; tally != c.tally || analytics != c.analytics {
				t.Errorf("after %v: want %d partitions of tally and %d of analytics at risk, got %d and %d", c.age, c.tally, c.analytics, tally, analytics)
			}
			if senders := risk[schemas.SenderGroup(schemas.APNS, schemas.Bulk)]; len(senders) > 0 {
				t.Errorf("after %v: sends are kept until they are read, and are at risk: %v", c.age, senders)
			}
		}
	})
}
