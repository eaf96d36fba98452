package api_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/campanile-push/campanile/api"
)

// types are those of the document's schemas.
var types = map[string]reflect.Type{
	"Accepted": reflect.TypeFor[api.Accepted](), "AcceptedNotification": reflect.TypeFor[api.AcceptedNotification](), "Act": reflect.TypeFor[api.Act](),
	"Broadcast": reflect.TypeFor[api.Broadcast](), "BroadcastList": reflect.TypeFor[api.BroadcastList](), "BroadcastRequest": reflect.TypeFor[api.BroadcastRequest](),
	"Controlled": reflect.TypeFor[api.Controlled](), "Message": reflect.TypeFor[api.Message](), "NotificationRequest": reflect.TypeFor[api.NotificationRequest](),
	"Problem": reflect.TypeFor[api.Problem](), "Progress": reflect.TypeFor[api.Progress](), "RateRequest": reflect.TypeFor[api.RateRequest](),
	"Reason": reflect.TypeFor[api.Reason](), "RegisteredToken": reflect.TypeFor[api.RegisteredToken](), "TokenRequest": reflect.TypeFor[api.TokenRequest](),
	"TransportProgress": reflect.TypeFor[api.TransportProgress](), "Update": reflect.TypeFor[api.Update](),
}

type schema struct {
	Ref        string `json:"$ref"`
	Type       string
	Format     string
	Properties map[string]schema
	Required   []string
	Items      *schema
	Enum       []string
}

// shape is a Go type as the document names it.
func shape(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[time.Time]() {
		return "date-time"
	}
	switch t.Kind() { //nolint:exhaustive // those in use
	case reflect.String:
		return "string"
	case reflect.Int64:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		return "array of " + shape(t.Elem())
	case reflect.Map:
		return "object"
	case reflect.Struct:
		return t.Name()
	}
	return t.String()
}

func (s *schema) shape() string {
	switch {
	case s.Ref != "":
		return strings.TrimPrefix(s.Ref, "#/components/schemas/")
	case s.Format == "date-time":
		return s.Format
	case s.Items != nil:
		return "array of " + s.Items.shape()
	}
	return s.Type
}

func TestTypesAreTheDocuments(t *testing.T) {
	t.Parallel()
	var doc struct {
		OpenAPI    string
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(api.Document, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || len(doc.Components.Schemas) != len(types) {
		t.Errorf("OpenAPI %s with %d schemas, want 3.1.0 with %d", doc.OpenAPI, len(doc.Components.Schemas), len(types))
	}
	for name, s := range doc.Components.Schemas {
		goType, ok := types[name]
		if !ok {
			t.Errorf("%s has no type", name)
			continue
		}
		want, got := map[string]string{}, map[string]string{}
		for property, p := range s.Properties {
			want[property] = p.shape()
			if slices.Contains(s.Required, property) {
				want[property] += ", required"
			}
		}
		for f := range goType.Fields() {
			property, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			got[property] = shape(f.Type)
			if options == "" {
				got[property] += ", required"
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-document +type):\n%s", name, diff)
		}
	}
}

func TestTheDocumentRefersOnlyToWhatItHolds(t *testing.T) {
	t.Parallel()
	var doc map[string]any
	if err := json.Unmarshal(api.Document, &doc); err != nil {
		t.Fatal(err)
	}
	operations := map[string]bool{}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, m := range v {
				if text, ok := m.(string); ok && name == "$ref" {
					if _, known := types[strings.TrimPrefix(text, "#/components/schemas/")]; !known {
						t.Errorf("%s leads nowhere", text)
					}
				}
				if text, ok := m.(string); ok && name == "operationId" {
					if operations[text] {
						t.Errorf("operation %s stands twice", text)
					}
					operations[text] = true
				}
				walk(m)
			}
		case []any:
			for _, m := range v {
				walk(m)
			}
		}
	}
	walk(doc)
	if len(operations) == 0 {
		t.Error("no operations")
	}
}
