package ingest

import (
	"html"
	"net/http"
)

// indexPage answers GET /, which Moodle's settings page wants to be 200, and tells a curious person what listens here.
func indexPage(url string) *answer {
	more := ""
	if url != "" {
		more = `<p><a href="` + html.EscapeString(url) + `">More</a></p>`
	}
	return &answer{
		status: http.StatusOK, html: true,
		body: []byte(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Campanile</title>` +
			`<h1>Campanile</h1><p>A push server for Moodle and other AirNotifier clients.</p>` + more + `</html>` + "\n"),
	}
}
