package eventlog_test

import (
	"testing"

	"github.com/campanile-push/campanile/eventlog"
)

func TestNothingIsLeftToPlanAfterTheTopicsAreCreated(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, cfg eventlog.Config) {
		l := driveLog(t, cfg)
		plans, err := l.PlanTopics(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range plans {
			if p.Action != eventlog.KeepTopic {
				t.Errorf("%s: want %q, got %q: %v", p.Topic, eventlog.KeepTopic, p.Action, p.Configs)
			}
		}
	})
}
