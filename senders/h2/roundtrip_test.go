package h2_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/campanile-push/campanile/senders/h2"
)

func TestNetHTTPRunsOnAClient(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, implementation string) {
		s := serve(t, implementation, 100, func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			w.Header().Set("x-seen", req.Method+" "+req.Host+" "+req.RequestURI+" "+req.Header.Get("x-a")+" "+string(body))
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, "answer")
		})
		client := &http.Client{Transport: h2.NewRoundTripper(s.client(t), s.addr, 100)}
		send := func(method, url, body string) (*http.Response, error) {
			req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-A", "b")
			return client.Do(req)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			res, err := send(method, "https://"+s.addr+"/p?q=1", "body")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if want := method + " " + s.addr + " /p?q=1 b body"; err != nil || string(text) != "answer" || res.StatusCode != http.StatusAccepted || res.Header.Get("X-Seen") != want {
				t.Errorf("want %q, got %q, %d, %q, %v", want, res.Header.Get("X-Seen"), res.StatusCode, text, err)
			}
		}
		for url, body := range map[string]string{"https://elsewhere/": "", "http://" + s.addr: "", "https://" + s.addr: strings.Repeat("x", 101)} {
			if res, err := send(http.MethodPost, url, body); !errors.Is(err, h2.ErrNotSent) {
				if err == nil {
					_ = res.Body.Close()
				}
				t.Errorf("%s: want ErrNotSent, got %v", url, err)
			}
		}
	})
}

func TestACutBodyIsNoWholeOne(t *testing.T) {
	t.Parallel()
	s := serve(t, "net/http", 100, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1000)) })
	client := &http.Client{Transport: h2.NewRoundTripper(s.client(t, func(o *h2.ClientOptions) { o.MaxBody = 10 }), s.addr, 0)}
	res, err := client.Get("https://" + s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); len(text) != 10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("want 10 bytes and an unexpected end, got %d and %v", len(text), err)
	}
}
