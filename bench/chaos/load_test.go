package chaos

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestWhatAnIngestMustNotAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/tokens/secret":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "/refused":
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(server.Close)
	var complaints []string
	client := http.Client{Transport: watchful{server.Client().Transport, func(text string) { complaints = append(complaints, text) }}}
	for _, path := range []string{"/well", "/busy", "/tokens/secret", "/broken", "/refused"} {
		answer, err := client.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
	want := []string{"GET /tokens/… was answered 503 without Retry-After", "GET /broken was answered 500 Internal Server Error"}
	if !slices.Equal(complaints, want) {
		t.Errorf("want %q, got %q", want, complaints)
	}
}
