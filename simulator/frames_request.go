package simulator

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// h2Request is a request's header list, checked as far as HTTP/2 itself goes.
type h2Request struct {
	values    [fieldKinds]string // the first of each
	seen      uint32             // bit by kind
	duplicate bool               // one of Apple's stands twice
	path      string             // decoded, without a query
	length    int64              // of the body, as announced; -1: not
	others    []headerField      // those without a kind
}

// read takes a decoded block. It returns the rule that is broken; "": none. The strings are kept.
func (r *h2Request) read(fields []decodedField) (rule string) {
	r.values, r.seen, r.duplicate, r.length, r.others = [fieldKinds]string{}, 0, false, -1, r.others[:0]
	regular := false
	for i := range fields {
		f := &fields[i]
		pseudo := f.kind != fieldOther && f.kind <= fieldAuthority
		if f.kind == fieldOther {
			if f.name == "" || !f.checked && !validFieldName(f.name) || f.name[0] == ':' {
				return "malformed_field"
			}
			if connectionSpecific(f.name, f.value) {
				return "connection_specific_field"
			}
			r.others = append(r.others, headerField{f.name, f.value})
		}
		if !f.checked && !validFieldValue(f.value) {
			return "malformed_field"
		}
		bit := uint32(1) << f.kind
		twice := f.kind != fieldOther && r.seen&bit != 0
		switch {
		case pseudo && (regular || twice):
			return "misplaced_pseudo_field"
		case twice:
			r.duplicate = r.duplicate || f.kind <= fieldAPNSPushType
			continue
		}
		regular = regular || !pseudo
		r.seen |= bit
		r.values[f.kind] = f.value
	}
	return r.check()
}

func (r *h2Request) check() (rule string) {
	path := r.values[fieldPath]
	if r.values[fieldMethod] == "" || path == "" || r.values[fieldScheme] == "" {
		return "missing_pseudo_field"
	}
	r.path = path
	if path[0] != '/' || strings.IndexByte(path, '%') >= 0 || strings.IndexByte(path, '?') >= 0 || strings.IndexByte(path, '#') >= 0 {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return "malformed_path"
		}
		r.path = u.Path
	}
	if text := r.values[fieldContentLength]; text != "" {
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			return "malformed_content_length"
		}
		r.length = int64(n)
	}
	return ""
}

// http makes net/http's form of the request, for what is not worth a way of its own. The body is set by the caller.
func (r *h2Request) http() (*http.Request, error) {
	req, err := http.NewRequest(r.values[fieldMethod], "https://"+r.values[fieldAuthority]+r.values[fieldPath], nil) //nolint:noctx // the server sets its own
	if err != nil {
		return nil, err
	}
	req.Proto, req.ProtoMajor, req.ProtoMinor, req.Host = "HTTP/2.0", 2, 0, r.values[fieldAuthority]
	for _, f := range r.others {
		req.Header.Add(f.name, f.value)
	}
	for kind, name := range map[fieldKind]string{fieldAuthorization: "Authorization", fieldSendID: SendIDHeader} {
		if v := r.values[kind]; v != "" {
			req.Header.Set(name, v)
		}
	}
	return req, nil
}

// connectionSpecific fields have no place in HTTP/2 (RFC 9113, section 8.2.2).
func connectionSpecific(name, value string) bool {
	switch name {
	case "connection", "proxy-connection", "transfer-encoding", "upgrade", "keep-alive":
		return true
	case "te":
		return value != "trailers"
	}
	return false
}

// validFieldName accepts a token of RFC 9110 without capitals.
func validFieldName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && !strings.ContainsRune("!#$%&'*+.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}

func validFieldValue(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
