package simulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/campanile-push/campanile/simulator"
)

func TestTopicsCountTheirSubscribers(t *testing.T) {
	t.Parallel()
	for _, server := range []string{simulator.ServerFrames, simulator.ServerNetHTTP} {
		r := setup(t, func(o *simulator.Options) { o.Server = server })
		batch := func(what string, tokens ...string) reply {
			body := fmt.Sprintf(`{"to":"/topics/news","registration_tokens":["%s"]}`, strings.Join(tokens, `","`))
			return r.send(body, setPath("/iid/v1:batch"+what), setHeader("access_token_auth", "true"))
		}
		if got := batch("Add", "a:1", "a:2", "ä", "a:1"); got.status != 200 || got.body != `{"results":[{},{},{"error":"INVALID_ARGUMENT"},{}]}` {
			t.Errorf("%s: got %d %s", server, got.status, got.body)
		}
		fanOut := func() int {
			if got := r.send(`{"message":{"topic":"news","notification":{"title":"x"}}}`); got.status != 200 {
				t.Fatalf("%s: got %d %s", server, got.status, got.body)
			}
			pushes := r.Pushes(simulator.PushFilter{Token: "/topics/news"})
			return pushes[len(pushes)-1].FanOut
		}
		if got := fanOut(); got != 2 {
			t.Errorf("%s: want 2 subscribers, got %d", server, got)
		}
		if got := batch("Remove", "a:1"); got.status != 200 || fanOut() != 1 {
			t.Errorf("%s: want one subscriber left, got %d %s", server, got.status, got.body)
		}
		many := make([]string, 1001)
		for i := range many {
			many[i] = fmt.Sprintf("t:%d", i)
		}
		if got := batch("Add", many...); got.status != 400 || !strings.Contains(got.body, "TooManyTokens") {
			t.Errorf("%s: want at most 1000 at once, got %d %s", server, got.status, got.body)
		}
		if got := r.send(`{}`, setPath("/iid/v1:batchAdd")); got.status != 401 {
			t.Errorf("%s: want 401 without access_token_auth, got %d", server, got.status)
		}
		if err := r.Client().Reset(t.Context(), "tokens"); err != nil || fanOut() != 0 {
			t.Errorf("%s: want no subscriber after a reset: %v", server, err)
		}
	}
}
