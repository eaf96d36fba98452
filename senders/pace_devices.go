package senders

import (
	"hash/maphash"
	"time"
)

// What FCM takes for one device (Google, "Throttling and quotas").
const (
	devicePerMinute = 240
	devicePerHour   = 5000
)

// sketch counts pushes by device over a window, without a place for each device: a count-min sketch of two rows with conservative
// update, which may count too many and never too few. At 10,000 pushes a second to as many devices, a place of the hour's
// sketch holds about 550 strangers.
type sketch struct {
	most     uint16
	windowUS int64
	endUS    int64
	rows     [2][1 << 16]uint16
}

// add counts a push, and returns when the device may have the next; zero: now.
func (s *sketch) add(hash uint64, nowUS int64) int64 {
	if nowUS >= s.endUS {
		clear(s.rows[0][:])
		clear(s.rows[1][:])
		s.endUS = nowUS + s.windowUS
	}
	a, b := &s.rows[0][uint16(hash)], &s.rows[1][uint16(hash>>32)]
	n := min(*a, *b)
	if n >= s.most {
		return s.endUS
	}
	*a, *b = max(*a, n+1), max(*b, n+1)
	return 0
}

// devices holds each device to what FCM takes for it. Not safe for concurrent use. Half a megabyte.
type devices struct {
	seed         maphash.Seed
	minute, hour sketch
}

func newDevices() *devices {
	return &devices{
		seed:   maphash.MakeSeed(),
		minute: sketch{most: devicePerMinute, windowUS: time.Minute.Microseconds()},
		hour:   sketch{most: devicePerHour, windowUS: time.Hour.Microseconds()},
	}
}

// wait counts a push to a token, and returns how long it has to wait, in microseconds; then it was not counted.
func (d *devices) wait(token string, nowUS int64) int64 {
	hash := maphash.String(d.seed, token)
	if at := d.hour.add(hash, nowUS); at > 0 {
		return at - nowUS
	}
	if at := d.minute.add(hash, nowUS); at > 0 {
		return at - nowUS
	}
	return 0
}
