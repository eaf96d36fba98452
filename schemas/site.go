package schemas

import (
	"net/url"
	"strings"
)

// SiteURL is a site's address in the one form for comparing claims: scheme and host in lower case, no slash at the end, neither query nor
// fragment. ok is false for what is no http or https address, or longer than 255 bytes.
func SiteURL(s string) (address string, ok bool) {
	s = strings.TrimSpace(s)
	if CheckChannel(s) != nil { // the same alphabet and length
		return "", false
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", false
	}
	scheme := strings.ToLower(u.Scheme)
	if scheme != "http" && scheme != "https" {
		return "", false
	}
	return scheme + "://" + strings.ToLower(u.Host) + strings.TrimRight(u.EscapedPath(), "/"), true
}
