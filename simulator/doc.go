// Package simulator stands in for Apple's and Google's push services: APNs (production and sandbox), FCM's HTTP v1 API and
// Google's OAuth token endpoint, over TLS with a certificate authority of its own. It checks requests as the providers do,
// answers in their words, fails as told, and keeps a ledger of every push that it accepted, so that loss and repeats can be
// counted.
//
// # What a push is called
//
// The ledger names a push by provider, app (APNs topic or FCM project), token and notification id. For APNs the id is
// apns-id. FCM's request has no such field, so the id is, in this order:
//
//  1. the request header X-Campanile-Send-Id, which Google ignores and no phone sees: what a sender should set, to the
//     send's id in canonical text;
//  2. message.data["campanile_id"], which lets an app report what it received: for clients that cannot set a header;
//  3. message.fcm_options.analytics_label;
//  4. otherwise a hash of the message without its ttl: two pushes of one text to one token then count as a repeat.
//
// # Who fails
//
// The fate of a push is a function of (seed, token, attempt), where attempts are counted by notification. First comes the
// first rule that matches (Rule; brown-outs are rules too), then what was said of the token by Kill and Revive, then
// a marker in the token, then the scenario's mix by a hash of seed and token; what is left is accepted.
//
// Markers: an FCM token "sim:<reason>:<anything>" or "sim:<reason>*<n>:<anything>", and an APNs token that starts with
// 0badcafe and the four digits of apnsMarkers, followed by two hexadecimal digits for the number of attempts. The reason "ok"
// (digits 0200) is accepted whatever the mix says; without a number, or with 0, the fault has no end.
//
// # Layers
//
// What is right, what is answered and what is recorded is pure or nearly so and knows no net/http: rules_apns.go,
// rules_fcm.go, jwt.go, reasons.go, fate.go, core.go, ledger.go. The files http_*.go speak for them through net/http.
package simulator
