package migrate

import (
	"net/netip"
	"strings"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

// application is what a document of AirNotifier's collection applications becomes.
type application struct {
	config    *pushv1.AppConfigured
	badBlocks int64 // lines of the block list that are no address
	fcm       *pushv1.FcmCredentials
	apns      *pushv1.ApnsCredentials
	// left are settings that stay behind, with the reason.
	left []string
}

// Notes about settings.
const (
	badAppName     = "short name that no app can have: want a-z, 0-9, '.', '-', '_'"
	badBlockLine   = "line of the block list that is neither address nor CIDR"
	leftGCM        = "GCM key: Google ended GCM in 2019"
	leftWNS        = "WNS credentials: Campanile does not deliver to Windows"
	leftSMS        = "Clickatell credentials: Campanile sends no SMS"
	leftMPNS       = "MPNS certificate: Microsoft ended MPNS in 2018"
	leftCert       = "APNs certificate: its files are not in an export; `campanile app credentials apns --p12`"
	leftSandbox    = "APNs sandbox: register such tokens with environment=sandbox"
	partialFCM     = "FCM: project id without service account"
	partialAPNs    = "APNs: of key, key id, team id and bundle id, some are missing"
	noCredentials  = "neither FCM nor APNs: `campanile app credentials`"
	refusedAPNs    = "APNs: "
	refusedFCM     = "FCM: "
	madeWithoutDoc = "no document of applications: made with its name alone"
)

// readApplication decides what a document becomes; reason says why it is refused.
func readApplication(doc []byte) (app application, reason string) {
	fields := map[string]value{}
	members(doc, func(name string, raw []byte) { fields[name] = readValue(raw) })
	name := fields["shortname"].string()
	if schemas.CheckApp(name) != nil {
		return application{}, badAppName
	}
	app.config = &pushv1.AppConfigured{App: name, Title: fields["fullname"].string(), Description: fields["description"].string()}
	app.config.BlockedNetworks, app.badBlocks = blockList(fields["blockediplist"].string())

	has := func(names ...string) (n int) {
		for _, f := range names {
			if !fields[f].missing() {
				n++
			}
		}
		return n
	}
	switch {
	case has("fcm-jsonkey") > 0:
		app.fcm = &pushv1.FcmCredentials{ProjectId: fields["fcm-project-id"].string(), ServiceAccountJson: fields["fcm-jsonkey"].string()}
	case has("fcm-project-id") > 0:
		app.left = append(app.left, partialFCM)
	}
	switch has("apns-auth-key", "apns-key-id", "apns-team-id", "apns-bundle-id") {
	case 0:
	case 4:
		app.apns = &pushv1.ApnsCredentials{
			Topic: fields["apns-bundle-id"].string(), TeamId: fields["apns-team-id"].string(),
			KeyId: fields["apns-key-id"].string(), P8: fields["apns-auth-key"].string(),
		}
	default:
		app.left = append(app.left, partialAPNs)
	}
	for _, old := range []struct {
		left   string
		fields []string
	}{
		{leftGCM, []string{"gcmprojectnumber", "gcmapikey"}},
		{leftWNS, []string{"wnsclientid", "wnsclientsecret"}},
		{leftSMS, []string{"clickatellusername", "clickatellpassword", "clickatellpassport", "clickatellappid"}},
		{leftMPNS, []string{"mpnscertificatefile"}},
		{leftCert, []string{"certfile", "keyfile"}},
	} {
		if has(old.fields...) > 0 {
			app.left = append(app.left, old.left)
		}
	}
	if strings.EqualFold(fields["environment"].string(), "sandbox") {
		app.left = append(app.left, leftSandbox)
	}
	return app, ""
}

// blockList keeps the lines that can block somebody.
func blockList(text string) (networks []string, bad int64) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		_, err := netip.ParseAddr(line)
		if err != nil {
			_, err = netip.ParsePrefix(line)
		}
		if err != nil {
			bad++
			continue
		}
		networks = append(networks, line)
	}
	return networks, bad
}
