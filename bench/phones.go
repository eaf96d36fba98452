package bench

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Phone is a made-up device.
type Phone struct {
	Token    string
	Platform string // as the Moodle app sends it
}

// MakePhone makes phone number n of a set: always the same. Two of three are Android phones, which FCM serves, and the others iPhones
// with APNs tokens.
func MakePhone(set string, n int) Phone {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", set, n))
	if n%3 == 2 {
		return Phone{hex.EncodeToString(sum[:]), "ios"}
	}
	return Phone{"d" + base64.RawURLEncoding.EncodeToString(sum[:15]) + ":APA91b" + base64.RawURLEncoding.EncodeToString(sum[:]), "Android-fcm"}
}

// Each calls do with 0 to n-1 from width goroutines, and counts what is done into done unless that is nil. It ends with the first error.
func Each(ctx context.Context, n, width int, done *atomic.Int64, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range width {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return ctx.Err()
				}
				if err := do(ctx, i); err != nil {
					return err
				}
				if done != nil {
					done.Add(1)
				}
			}
		})
	}
	return group.Wait()
}
