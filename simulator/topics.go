package simulator

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
)

// Paths of the Instance ID service, where servers subscribe tokens to topics.
const (
	pathBatchAdd    = "/iid/v1:batchAdd"
	pathBatchRemove = "/iid/v1:batchRemove"
)

// Limits of topics: "Manage FCM topic subscriptions".
const (
	maxBatchTokens   = 1000
	maxSubscriptions = 10_000_000 // ours: 16 bytes each, so that a client cannot fill the memory
)

// topics keeps which tokens hear which topic. Safe for concurrent use.
type topics struct {
	mu      sync.Mutex
	members map[string]map[uint64]struct{} // by project and topic: token hashes
	n       int
}

func newTopics() *topics { return &topics{members: map[string]map[uint64]struct{}{}} }

func topicKey(project, name string) string {
	return project + "\x00" + strings.TrimPrefix(name, "/topics/")
}

// set subscribes a token, or ends that. It returns the error that Google has for the token; "": none.
func (t *topics) set(project, name, token string, subscribed bool) string {
	if !validFCMToken(token) {
		return "INVALID_ARGUMENT"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key, hash := topicKey(project, name), TokenHash(token)
	_, there := t.members[key][hash]
	switch {
	case subscribed && !there:
		if t.n >= maxSubscriptions {
			return "RESOURCE_EXHAUSTED"
		}
		if t.members[key] == nil {
			t.members[key] = map[uint64]struct{}{}
		}
		t.members[key][hash] = struct{}{}
		t.n++
	case !subscribed && there:
		delete(t.members[key], hash)
		if len(t.members[key]) == 0 {
			delete(t.members, key)
		}
		t.n--
	}
	return ""
}

// reach is how many tokens a topic has.
func (t *topics) reach(project, name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.members[topicKey(project, name)])
}

func (t *topics) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.members, t.n = map[string]map[uint64]struct{}{}, 0
}

// subscribe answers batchAdd and batchRemove.
func (h *fcmHTTP) subscribe(w http.ResponseWriter, r *http.Request) {
	project, expires, ok := readAccess(h.identity.secret, r.Header.Get("Authorization"))
	if !ok || h.core.now().Unix() >= expires || r.Header.Get("Access_token_auth") != "true" {
		h.writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "AuthenticationError"})
		return
	}
	var body struct {
		To     string   `json:"to"`
		Tokens []string `json:"registration_tokens"`
	}
	text := http.MaxBytesReader(w, r.Body, maxBatchTokens*maxFCMToken)
	err := json.NewDecoder(text).Decode(&body)
	switch {
	case r.Method != http.MethodPost:
		h.writeJSON(w, http.StatusMethodNotAllowed, map[string]any{"error": "MethodNotAllowed"})
	case err != nil || !strings.HasPrefix(body.To, "/topics/") || !topicForm.MatchString(body.To) || len(body.Tokens) == 0:
		h.writeJSON(w, http.StatusBadRequest, map[string]any{"error": "InvalidRequest"})
	case len(body.Tokens) > maxBatchTokens:
		h.writeJSON(w, http.StatusBadRequest, map[string]any{"error": "TooManyTokens"})
	default:
		results := make([]map[string]string, len(body.Tokens))
		for i, token := range body.Tokens {
			results[i] = map[string]string{}
			if problem := h.topics.set(project, body.To, token, r.URL.Path == pathBatchAdd); problem != "" {
				results[i]["error"] = problem
			}
		}
		h.core.stats.answered(serviceFCM, http.StatusOK, "topic_subscription")
		h.writeJSON(w, http.StatusOK, map[string]any{"results": results})
	}
}
