package main

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheClientIsWhatTheDocumentGives(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("../client_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := Client(document)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(fresh), string(committed)); diff != "" {
		t.Errorf("client_gen.go is stale: go generate ./api (-fresh +committed):\n%s", diff)
	}
}
