package h2_test

import (
	"fmt"
	"testing"

	"github.com/campanile-push/campanile/senders/h2"
)

// BenchmarkClient is the client alone, with 500 requests of 200 bytes in flight against net/http's server in the same process.
func BenchmarkClient(b *testing.B) {
	s := serve(b, "net/http", 1000, echo)
	c := s.client(b)
	h := head(b, s.addr, "", h2.Field{Name: "x-constant", Value: "constant"})
	body := make([]byte, 200)
	free := make(chan *h2.Request, 500)
	for range cap(free) {
		free <- &h2.Request{Head: h, Body: body, Done: func(r *h2.Request, _ *h2.Response, err error) {
			if err != nil {
				b.Error(err)
			}
			free <- r
		}}
	}
	b.ReportAllocs()
	for i := range b.N {
		r := <-free
		r.Path = fmt.Appendf(r.Path[:0], "/3/device/%064x", i)
		r.Fields.Reset()
		r.Fields.Add("x-id", "123e4567-e89b-12d3-a456-426655440000")
		if err := c.Start(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(free) {
		<-free
	}
}
