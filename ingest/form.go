package ingest

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"slices"
	"strings"
)

const (
	maxFields    = 1024
	maxFieldName = 255 // bytes
)

// Errors of parseForm.
var (
	errMalformedForm = errors.New("malformed form")
	errTooManyFields = errors.New("too many fields")
)

// form holds a request's arguments: those of the query, then those of the body, in order.
type form struct {
	fields []field
}

type field struct{ name, value string }

// get is the last value of that name, without surrounding space, as AirNotifier takes it.
func (f *form) get(name string) string {
	v, _ := f.lookup(name)
	return v
}

func (f *form) lookup(name string) (string, bool) {
	for _, x := range slices.Backward(f.fields) {
		if x.name == name {
			return strings.TrimSpace(x.value), true
		}
	}
	return "", false
}

func (f *form) add(name, val string) error {
	if len(f.fields) >= maxFields || len(name) > maxFieldName {
		return errTooManyFields
	}
	f.fields = append(f.fields, field{strings.ToValidUTF8(name, "\uFFFD"), strings.ToValidUTF8(val, "\uFFFD")})
	return nil
}

// addQuery adds the fields of an urlencoded string. A pair that cannot be decoded is left out, as Python does.
func (f *form) addQuery(s string) error {
	for s != "" {
		var pair string
		pair, s, _ = strings.Cut(s, "&")
		if pair == "" {
			continue
		}
		name, val, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			continue
		}
		if val, err = url.QueryUnescape(val); err != nil {
			continue
		}
		if err := f.add(name, val); err != nil {
			return err
		}
	}
	return nil
}

// addBody adds the fields of a body. A body under another label than those of forms has none.
func (f *form) addBody(contentType, body string) error {
	if body == "" {
		return nil
	}
	kind, params, err := mime.ParseMediaType(contentType)
	switch {
	case kind == "application/x-www-form-urlencoded":
		return f.addQuery(body)
	case kind != "multipart/form-data":
		return nil
	case err != nil || params["boundary"] == "":
		return errMalformedForm
	}
	r := multipart.NewReader(strings.NewReader(body), params["boundary"])
	for {
		part, err := r.NextRawPart() // raw: nobody encodes fields as quoted-printable, and a value stays what was sent
		if err == io.EOF {           //nolint:errorlint // a wrapped EOF is a body that ended before its last boundary
			return nil
		}
		if err != nil {
			return errMalformedForm
		}
		if part.FileName() != "" || part.FormName() == "" {
			continue
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return errMalformedForm
		}
		if err := f.add(part.FormName(), string(content)); err != nil {
			return err
		}
	}
}
