package ingest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/campanile-push/campanile/ingest"
	"github.com/campanile-push/campanile/schemas"
	"github.com/campanile-push/campanile/vault"
)

// ackLog acknowledges at once what was encoded: what is measured is ingest alone. The log's share is measured with the whole pipeline.
type ackLog struct {
	*memLog
	outs sync.Pool
}

func (l *ackLog) Append(_ context.Context, say func(out *schemas.Out)) error {
	out, ok := l.outs.Get().(*schemas.Out)
	if !ok {
		out = schemas.NewOut(l.layout)
	}
	say(out)
	out.Reset()
	l.outs.Put(out)
	return nil
}

const benchBody = `{"device":"Android-fcm","token":"dQw4w9WgXcQ:APA91bF-x_Y8kL2mN3oP4qR5sT6uV7wX8yZ9aB0cD1eF2gH3iJ4kL5mN6oP7qR8sT9uV0wX1yZ2","extra":{"courseid":"1","component":"mod_forum","name":"posts","subject":"Re: Timetable","smallmessage":"Anne posted in Timetable","notification":1,"contexturl":"https:\/\/moodle.example.org\/mod\/forum\/discuss.php?d=7#p9","contexturlname":"Forum","replyto":"","timecreated":1800000000,"savedmessageid":42,"customdata":"{\"cmid\":\"5\",\"instance\":\"2\"}","userfromid":"3","userfromfullname":"Anne O'Neil","usertoid":"4","processor":"moodle","site":"0123456789abcdef0123456789abcdef","date":1800000000,"sitefullname":"Campus","siteshortname":"campus","wwwroot":"https:\/\/moodle.example.org","encrypted":false}}`

// benchServer is an ingest that knows the token and the key.
func benchServer(b *testing.B) http.Handler {
	b.Helper()
	hasher, err := vault.ParseHasher(testHashKey)
	if err != nil {
		b.Fatal(err)
	}
	mem := newMemLog()
	l := &ackLog{memLog: mem}
	s := ingest.New(ingest.Options{}, l, newMemStore(mem), hasher, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := mem.Append(b.Context(), appWithKey); err != nil {
		b.Fatal(err)
	}
	if err := mem.follow(schemas.Apps, s.ApplyApps).catchUp(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		<-done
	})
	return s.Handler()
}

// bareServer is the least that a gin handler does with a push: it reads the body and answers 202.
func bareServer() http.Handler {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.POST("/api/v2/push/", func(c *gin.Context) {
		_, _ = io.Copy(io.Discard, c.Request.Body)
		c.Status(http.StatusAccepted)
	})
	return e
}

// BenchmarkPush compares a push's way through ingest with a bare gin handler: over connections that are kept, as a proxy in front keeps
// them (/http), and without a network (/handler).
func BenchmarkPush(b *testing.B) {
	for _, c := range []struct {
		name string
		h    func(b *testing.B) http.Handler
	}{{"bare", func(*testing.B) http.Handler { return bareServer() }}, {"ingest", benchServer}} {
		b.Run("http/"+c.name, func(b *testing.B) { overHTTP(b, c.h(b)) })
		b.Run("handler/"+c.name, func(b *testing.B) { withoutNetwork(b, c.h(b)) })
	}
}

func overHTTP(b *testing.B, h http.Handler) {
	b.Helper()
	web := httptest.NewServer(h)
	defer web.Close()
	raw := []byte("POST /api/v2/push/ HTTP/1.1\r\nHost: push.example.org\r\nAccept: application/json\r\nX-AN-APP-NAME: " + appName +
		"\r\nX-AN-APP-KEY: " + keyAll + "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: " +
		fmt.Sprint(len(benchBody)) + "\r\n\r\n" + benchBody)
	b.SetParallelism(16)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	b.RunParallel(func(pb *testing.PB) {
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", strings.TrimPrefix(web.URL, "http://"))
		if err != nil {
			b.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		r := bufio.NewReader(conn)
		for pb.Next() {
			if _, err := conn.Write(raw); err != nil {
				b.Error(err)
				return
			}
			if err := readHead(r); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu_us/req") // client, kernel and server together
}

// cpuTime is what this process has used, which a busy machine disturbs less than the clock.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// readHead reads an answer without a body, and as little else as it can: the client's work is in both figures.
func readHead(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if string(line[9:12]) != "202" {
		return fmt.Errorf("want 202, got %s", line)
	}
	for len(line) > 2 {
		if line, err = r.ReadSlice('\n'); err != nil {
			return err
		}
	}
	return nil
}

// sink is a response that goes nowhere.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(status int)      { s.status = status }

func withoutNetwork(b *testing.B, h http.Handler) {
	b.Helper()
	body := strings.NewReader(benchBody)
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/api/v2/push/", body)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("X-AN-APP-NAME", appName)
	req.Header.Set("X-AN-APP-KEY", keyAll)
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		body.Reset(benchBody)
		req.Body = io.NopCloser(body)
		clear(w.header)
		h.ServeHTTP(w, req)
		if w.status != http.StatusAccepted {
			b.Fatalf("want 202, got %d", w.status)
		}
	}
}
