package ingest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/campanile-push/campanile/schemas"
	pushv1 "github.com/campanile-push/campanile/schemas/push/v1"
)

const (
	maxKeyText    = 255 // bytes of contact and description; what is longer is cut
	expiredAtOnce = 16  // pending keys that one request clears away
)

// keyRequest is a site that asks for a key.
type keyRequest struct {
	processor, url, siteid, contact, description string
}

// requestKeyV1 is POST /accesskeys/.
func (c *call) requestKeyV1() *answer {
	if refused := c.admit(anyKey, true); refused != nil {
		return refused
	}
	return c.requestKey(&keyRequest{
		processorMoodle, c.form.get("url"), c.form.get("siteid"), c.form.get("contact"), c.form.get("description"),
	})
}

// requestKeyV2 is POST /api/v2/accesskeys. Without the processor moodle its keys permit nothing. Whatever fails is 403.
func (c *call) requestKeyV2() *answer {
	if refused := c.admit(anyKey, false); refused != nil {
		return refused
	}
	members, refused := c.json()
	if refused != nil {
		if refused.status == http.StatusInternalServerError {
			refused = &answer{status: http.StatusForbidden, body: refused.body}
		}
		return refused
	}
	var r keyRequest
	for i := range members {
		v := members[i].value
		switch members[i].name {
		case "processor":
			r.processor, _ = v.typed()
		case "url":
			r.url = v.text()
		case "siteid":
			r.siteid, _ = v.typed()
		case "contact":
			r.contact = v.text()
		case "description":
			r.description = v.text()
		}
	}
	if r.processor != "" && r.processor != processorMoodle {
		return noProcessor(http.StatusForbidden, r.processor)
	}
	return c.requestKey(&r)
}

// requestKey gives a site a key of its own, as the app's policy has it. A URL comes from anybody and proves nothing: what a key reaches
// is its claim's alone, until the claim is proven.
func (c *call) requestKey(r *keyRequest) *answer {
	s, now := c.server, c.now
	address, valid := schemas.SiteURL(r.url)
	// By address and URL, not by URL alone: anybody could use a site's allowance up, and keep it from its key.
	from := addressName(c.gin.ClientIP())
	if !s.perIP.take(from, now) || valid && !s.perURL.take(c.grant.app+" "+from+" "+address, now) {
		s.metrics.keys.WithLabelValues("limited").Inc()
		return tooManyKeys
	}
	if r.processor == processorMoodle && !valid || r.url != "" && !valid {
		s.metrics.keys.WithLabelValues("refused").Inc()
		return siteNoURL
	}
	e := &pushv1.AccessKeyIssued{
		App: c.grant.app, Description: cut(r.description), Contact: cut(r.contact), IssuedAtUs: now.UnixMicro(), IssuedBy: "accesskeys",
	}
	siteid := sha256.Sum256([]byte(r.siteid))
	e.Claim = &pushv1.Claim{
		Url: strings.TrimSpace(r.url), SiteidHash: siteid[:], Channel: claimChannel(c.grant.app, address, r.siteid),
	}
	var expired []string
	if r.processor == processorMoodle {
		var refused *answer
		if expired, refused = c.applyPolicy(e, address, r.siteid); refused != nil {
			return refused
		}
	}
	return c.issueKey(e, expired)
}

// applyPolicy decides what the key permits; expired are pending keys to clear away with it.
func (c *call) applyPolicy(e *pushv1.AccessKeyIssued, address, siteid string) (expired []string, refused *answer) {
	s := c.server
	switch c.grant.policy {
	case pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_OPEN:
	case pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_ALLOW_LIST:
		if !c.grant.allowed[address] {
			s.metrics.keys.WithLabelValues("refused").Inc()
			return nil, siteUnknown
		}
	case pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_REMOTE_CHECK:
		known, err := s.check.ask(c.gin.Request.Context(), siteid, e.Claim.Url)
		if err != nil {
			s.metrics.keys.WithLabelValues("failed").Inc()
			s.slog.Error("site not checked", "app", e.App, "error", err)
			return nil, siteCheckAway
		}
		if !known {
			s.metrics.keys.WithLabelValues("refused").Inc()
			return nil, siteUnknown
		}
		e.Claim.Proven = true
	case pushv1.AccessKeyPolicy_ACCESS_KEY_POLICY_MANUAL:
		var waiting int
		waiting, expired = s.apps.pending(e.App, c.now.Add(-s.options.PendingFor), expiredAtOnce)
		if waiting >= s.options.MaxPendingKeys {
			s.metrics.keys.WithLabelValues("limited").Inc()
			return nil, tooManyPending
		}
		e.Pending = true
	default: // a policy of a newer Campanile: better nobody than anybody
		s.metrics.keys.WithLabelValues("refused").Inc()
		return nil, siteUnknown
	}
	if siteid != "" && !e.Pending && s.apps.claimIsProven(e.App, address, e.Claim.Channel) {
		e.Claim.Proven = true // the same claim again
	}
	e.Permissions = bitCreate | bitDelete | bitNotify
	if e.Claim.Proven || c.grant.waived {
		e.Permissions |= bitBroadcast
	}
	return expired, nil
}

// issueKey makes the value and answers it. It is told once, and the log has its hash alone.
func (c *call) issueKey(e *pushv1.AccessKeyIssued, expired []string) *answer {
	if refused := c.full(); refused != nil {
		return refused
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:])
	text := hex.EncodeToString(raw[:]) // Moodle's form takes A-Z, a-z, 0-9, - and _
	hash := sha256.Sum256([]byte(text))
	e.ValueHash, e.KeyId = hash[:], hex.EncodeToString(hash[:16])
	err := c.server.log.Append(c.gin.Request.Context(), func(out *schemas.Out) {
		for _, id := range expired {
			out.AccessKeyRevoked(&pushv1.AccessKeyRevoked{App: e.App, KeyId: id, RevokedAtUs: e.IssuedAtUs, RevokedBy: "expired"})
		}
		out.AccessKeyIssued(e)
	})
	if err != nil {
		c.server.metrics.keys.WithLabelValues("failed").Inc()
		return c.failed(err)
	}
	result := "issued"
	if e.Pending {
		result = "pending"
	}
	c.server.metrics.keys.WithLabelValues(result).Inc()
	c.server.slog.Info("access key requested", "app", e.App, "key_id", e.KeyId, "url", e.Claim.Url, "result", result)
	return &answer{status: http.StatusOK, body: []byte(`{"accesskey": "` + text + `"}`)}
}

// cut bounds a text that is kept for people to read.
func cut(s string) string {
	if len(s) > maxKeyText {
		s = s[:maxKeyText]
	}
	return strings.ToValidUTF8(s, "")
}
