package clickhouse_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

var sqlBlock = regexp.MustCompile("(?s)```sql\n(.*?);?\n```")

// TestDocumentedQueriesAnswer runs every query of docs/analytics.md on a history: each has rows to answer with.
func TestDocumentedQueriesAnswer(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, url string) {
		t.Helper()
		text, err := os.ReadFile("../../docs/analytics.md")
		if err != nil {
			t.Fatal(err)
		}
		blocks := sqlBlock.FindAllStringSubmatch(string(text), -1)
		if len(blocks) != 11 { // ten questions, and the one about columns
			t.Fatalf("the page has %d queries", len(blocks))
		}
		a := open(t, url)
		h := newHistory(5, 2000)
		for part := range int32(partitions) {
			if err := a.Handle(t.Context(), h.batch(part, 0, len(h.records[part])), nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Handle(t.Context(), deviceBatch(), nil); err != nil {
			t.Fatal(err)
		}
		if err := a.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		conf, err := driver.ParseDSN(url)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := driver.Open(conf)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, block := range blocks {
			rows, err := conn.Query(t.Context(), block[1])
			if err != nil {
				t.Errorf("%s\n%v", block[1], err)
				continue
			}
			n := 0
			for rows.Next() {
				n++
			}
			if err := rows.Err(); err != nil || n == 0 {
				t.Errorf("%s\n%d rows, %v", block[1], n, err)
			}
			_ = rows.Close()
		}
		var bare uint64
		err = conn.QueryRow(t.Context(), `SELECT count() FROM system.columns WHERE database = currentDatabase() AND comment = ''
			AND table IN (SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View')`).Scan(&bare)
		if err != nil || bare != 0 {
			t.Errorf("%d columns of views have no comment, %v", bare, err)
		}
	})
}

// deviceBatch is a life of twenty devices.
func deviceBatch() schemas.Batch {
	out := schemas.NewOut(schemas.Layout{Partitions: 1})
	at := int64(1_700_000_000_000_000) // more than thirteen months ago: long gone, but for the ones below
	out.TokenUnregistered(&pushv1.TokenUnregistered{App: "app0", Transport: schemas.FCM, Token: "old", UnregisteredAtUs: at})
	at = nowUS()
	for i := range 20 {
		token := fmt.Sprintf("token-%d", i)
		out.TokenRegistered(&pushv1.TokenRegistered{App: "app0", Transport: schemas.FCM, Token: token, Platform: "Android-fcm", AppVersion: "4.4", UserId: "u", RegisteredAtUs: at})
		out.ChannelSubscribed(&pushv1.ChannelSubscribed{App: "app0", Transport: schemas.FCM, Token: token, Channel: "c", SubscribedAtUs: at})
		out.TokenInvalidated(&pushv1.TokenInvalidated{App: "app0", Transport: schemas.FCM, Token: token, AsOfUs: at, Reason: "UNREGISTERED", InvalidatedAtUs: at + 1})
	}
	in := schemas.Batch{Topic: schemas.Devices}
	out.Each(func(topic schemas.Topic, part int32, key, value []byte) {
		in.Records = append(in.Records, schemas.Record{
			Topic: topic, Offset: int64(len(in.Records)), Key: []byte(strings.Clone(string(key))), Value: append([]byte(nil), value...),
		})
	})
	return in
}
