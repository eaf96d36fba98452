// Package migratetest makes exports of an AirNotifier that never was, with every dirt that real ones have.
package migratetest

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Export says what to make. The same Export makes the same files, byte for byte.
type Export struct {
	App    string // short name; empty: demo
	Tokens int    // records of tokens
	Sites  int    // keys given to sites
	Seed   uint64
	// Array writes one array, as --jsonArray does, else one document a line.
	Array bool
	// Canonical writes canonical Extended JSON, else relaxed.
	Canonical bool
	Gzip      bool
	// FCM and APNs are the app's credentials: the service account's JSON, and a .p8 key. Empty: the app has none of them.
	FCM, APNs string
	// TeamID, KeyID and Topic belong to APNs.
	TeamID, KeyID, Topic string
}

// Made is what an importer must find in it.
type Made struct {
	Files []string
	// Keys are the values of the sites' keys, then the operator's.
	Keys []string
	// Counts are the tokens' records by what they are: see the constants.
	Counts map[string]int64
	// Devices are the different tokens that can be pushed to; Subscriptions their channels.
	Devices, Subscriptions int64
	// Samples are a few tokens by the platform under which they must be found.
	Samples map[string][]string
}

// What a record of a token can be.
const (
	Good      = "good"
	Folded    = "folded"
	NoToken   = "no token"
	NoText    = "token is no text"
	Unusable  = "unusable token"
	Short     = "ios, short"
	NoHex     = "ios, no hex"
	GCM       = "gcm"
	Windows   = "wns, mpns, sms"
	Junk      = "unknown platform"
	OtherApp  = "of another app"
	Malformed = "malformed"
	Channel   = "unusable channel" // a note: the record is good
)

// cycle is after how many records the dirt begins again.
const cycle = 1000

type maker struct {
	Export
	rng  *rand.Rand
	made *Made
	w    *bufio.Writer
	any  bool // a document was written
}

// Write makes the export under dir: airnotifier/applications.json, app_<app>/tokens.json, app_<app>/keys.json, and the files of
// collections that are not imported.
func Write(dir string, e Export) (*Made, error) {
	if e.App == "" {
		e.App = "demo"
	}
	m := &maker{Export: e, rng: rand.New(rand.NewPCG(e.Seed, 1)), made: &Made{Counts: map[string]int64{}, Samples: map[string][]string{}}}
	for _, f := range []struct {
		name  string
		write func()
	}{
		{"airnotifier/applications", m.applications},
		{"airnotifier/managers", func() { m.document(`"email":"admin@airnotifier","password":"5baa61e4"`) }},
		{"app_" + e.App + "/keys", m.keys},
		{"app_" + e.App + "/tokens", m.tokens},
		{"app_" + e.App + "/logs", func() { m.document(`"action":"push","info":"{\"token\":\"secret\"}"`) }},
		{"app_" + e.App + "/users", func() { m.document(`"email":"a@example.org","password":"in clear"`) }},
	} {
		if err := m.file(dir, f.name, f.write); err != nil {
			return nil, err
		}
	}
	return m.made, nil
}

func (m *maker) file(dir, name string, write func()) error {
	path := filepath.Join(dir, name+".json")
	if m.Gzip {
		path += ".gz"
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make an export: %w", err)
	}
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("make an export: %w", err)
	}
	defer func() { _ = file.Close() }()
	var out io.Writer = file
	var packed *gzip.Writer
	if m.Gzip {
		packed, _ = gzip.NewWriterLevel(file, gzip.BestSpeed)
		out = packed
	}
	m.w, m.any = bufio.NewWriterSize(out, 1<<20), false
	if m.Array {
		_ = m.w.WriteByte('[')
	}
	write()
	if m.Array {
		_, _ = m.w.WriteString("]\n")
	}
	if err := m.w.Flush(); err != nil { // it keeps the first error of any write
		return fmt.Errorf("make an export: %w", err)
	}
	if packed != nil {
		if err := packed.Close(); err != nil {
			return fmt.Errorf("make an export: %w", err)
		}
	}
	m.made.Files = append(m.made.Files, path)
	return file.Close() //nolint:wrapcheck // it names the file
}

// document writes one, with an _id in front of the given members.
func (m *maker) document(members string) {
	if m.any && m.Array {
		_ = m.w.WriteByte(',')
	}
	m.any = true
	fmt.Fprintf(m.w, `{"_id":{"$oid":"%024x"}%s%s}`, m.rng.Uint64(), comma(members), members)
	if !m.Array {
		_ = m.w.WriteByte('\n')
	}
}

func comma(s string) string {
	if s == "" {
		return ""
	}
	return ","
}

func (m *maker) int(n int64) string {
	if m.Canonical {
		return fmt.Sprintf(`{"$numberInt":"%d"}`, n)
	}
	return fmt.Sprint(n)
}

func (m *maker) double(f float64) string {
	if m.Canonical {
		return fmt.Sprintf(`{"$numberDouble":"%.3f"}`, f)
	}
	return fmt.Sprintf("%.3f", f)
}

func quote(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}

func (m *maker) applications() {
	text := fmt.Sprintf(`"shortname":%s,"fullname":"Campus app","description":"the app of a campus","orgid":%s,"blockediplist":"10.9.8.0/24\n\n2001:db8::1\nnonsense\n"`,
		quote(m.App), m.int(0))
	if m.FCM != "" {
		text += `,"fcm-project-id":"","fcm-jsonkey":` + quote(m.FCM)
	}
	if m.APNs != "" {
		text += `,"apns-team-id":` + quote(m.TeamID) + `,"apns-key-id":` + quote(m.KeyID) + `,"apns-bundle-id":` + quote(m.Topic) + `,"apns-auth-key":` + quote(m.APNs)
	}
	m.document(text + `,"gcmapikey":"AIza-old","wnsclientid":"","clickatellpassport":null`)
}

func (m *maker) hex(n int) string {
	const digits = "0123456789abcdef"
	b := make([]byte, n)
	for i := range b {
		b[i] = digits[m.rng.IntN(16)]
	}
	return string(b)
}

func (m *maker) keys() {
	for i := range m.Sites {
		key := m.hex(32)
		m.made.Keys = append(m.made.Keys, key)
		m.document(fmt.Sprintf(`"key":"%s","permission":%s,"contact":"admin@site%d.example.org","description":"https://site%d.example.org","created":%s`,
			key, m.int(15), i, i, m.int(1400000000+int64(i))))
	}
	operator := m.hex(32)
	m.made.Keys = append(m.made.Keys, operator)
	m.document(fmt.Sprintf(`"key":"%s","permission":%s,"contact":"","description":"monitoring","created":%s`, operator, m.double(15), m.int(1400000000)))
	m.document(fmt.Sprintf(`"key":"%s","permission":%s,"description":"again"`, operator, m.int(4)))
	m.document(`"key":null,"permission":15`)
	m.document(fmt.Sprintf(`"key":"%s","description":"permits nothing"`, m.hex(32)))
}

// fcm is a token as Firebase makes them, about 160 characters.
func (m *maker) fcm() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := make([]byte, 0, 163)
	for range 22 {
		b = append(b, alphabet[m.rng.IntN(64)])
	}
	b = append(b, ":APA91b"...)
	for range 134 {
		b = append(b, alphabet[m.rng.IntN(64)])
	}
	return string(b)
}

func (m *maker) tokens() {
	for i := 0; i < m.Tokens; {
		i += m.token(i)
	}
}

// good writes a record that is a device of its own, under the platform that an importer must give it.
func (m *maker) good(device, token, channel, platform string) {
	m.record(device, quote(token), channel, quote(m.App))
	m.made.Counts[Good]++
	m.made.Devices++
	m.made.Subscriptions++
	if s := m.made.Samples[platform]; len(s) < 20 {
		m.made.Samples[platform] = append(s, token)
	}
}

func (m *maker) bad(what, device, rawToken string) {
	m.record(device, rawToken, `"default"`, quote(m.App))
	m.made.Counts[what]++
}

// record writes a record; an empty argument leaves its member out.
func (m *maker) record(device, token, channel, app string) {
	var b strings.Builder
	for _, f := range []struct{ name, raw string }{
		{"device", device}, {"appname", app}, {"token", token}, {"channel", channel}, {"created", m.double(1.4e9)},
	} {
		if f.raw != "" {
			b.WriteString(comma(b.String()) + `"` + f.name + `":` + f.raw)
		}
	}
	m.document(b.String())
}

// token writes record i, and returns how many it wrote: a token that stands several times stands there at once, and again later.
func (m *maker) token(i int) int {
	const none, byDefault = "", `"default"`
	switch i % cycle {
	case 0:
		m.good(none, m.hex(64), byDefault, "ios")
	case 1:
		m.bad(Short, none, quote(m.hex(40)))
	case 2:
		m.good("null", m.fcm(), byDefault, "fcm")
	case 3:
		m.bad(NoToken, `"fcm"`, "null")
	case 4:
		m.bad(NoToken, `"fcm"`, `""`)
	case 5:
		m.bad(NoToken, `"ios"`, none)
	case 6:
		m.bad(NoText, `"fcm"`, m.int(42))
	case 7:
		m.bad(NoHex, `"ios"`, quote("g"+m.hex(63)))
	case 8:
		m.good(`"iOS"`, m.fcm(), byDefault, "fcm")
	case 9:
		m.bad(GCM, `"android"`, quote("APA91b"+m.hex(134)))
	case 10:
		m.good(`"android"`, m.fcm(), byDefault, "android")
	case 11:
		return m.several()
	case 14:
		for n, device := range []string{`"wns"`, `"mpns"`, `"sms"`} {
			m.bad(Windows, device, quote(fmt.Sprintf("https://db5.notify.windows.com/?%d", n)))
		}
		return 3
	case 17:
		m.bad(Junk, `"toaster"`, quote(m.fcm()))
	case 18:
		m.record(`"fcm"`, quote(m.fcm()), byDefault, `"another"`)
		m.made.Counts[OtherApp]++
	case 19:
		m.good(`"fcm"`, m.fcm(), "null", "fcm")
	case 20:
		m.good(`"fcm"`, m.fcm(), `"a\u0001b"`, "fcm")
		m.made.Counts[Channel]++
	case 21:
		m.document(`"device":"fcm","token":`)
		m.made.Counts[Malformed]++
	case 22:
		m.bad(Unusable, `"fcm"`, `"a\u0000b"`)
	case 23:
		m.good(`"android-fcm"`, m.fcm(), `"course-7"`, "android-fcm")
	default:
		m.common(i)
	}
	return 1
}

// common are the records that most exports are full of.
func (m *maker) common(i int) {
	switch i % 10 {
	case 0:
		m.good(`"ios"`, m.hex(64), `"default"`, "ios")
	case 1, 2:
		m.good(`"ios-fcm"`, m.fcm(), `"default"`, "ios-fcm")
	case 3, 4, 5:
		m.good(`"android-fcm"`, m.fcm(), `"default"`, "android-fcm")
	default:
		m.good(`"fcm"`, m.fcm(), `"default"`, "fcm")
	}
}

// several is one token under three platforms and two channels.
func (m *maker) several() int {
	token := m.fcm()
	m.good(`"android-fcm"`, token, `"default"`, "android-fcm")
	m.record(`"android"`, quote(token), `"course-9"`, quote(m.App))
	m.record(`"fcm"`, quote(token), `"default"`, quote(m.App))
	m.made.Counts[Folded] += 2
	m.made.Subscriptions++
	return 3
}
