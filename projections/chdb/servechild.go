package chdb

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// order is the line that a parent writes to its child's standard input: where to listen and under which key. An empty line
// leaves both to the child.
type order struct {
	Listen string `json:"listen"`
	Key    string `json:"key"`
}

// ready is the line that a child writes to its standard output when the engine answers.
type ready struct {
	URL string `json:"url"`
	Key string `json:"key"`
}

// ServeChild is the whole of the child's command: it reads one line of stdin (an order, or empty), serves o, writes one JSON
// line with url and key to stdout when the engine answers, and ends with nil when ctx ends or stdin closes, so that it
// never outlives its parent. The reading of stdin may outlast the call by one goroutine: the process is about to end.
func ServeChild(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	lines := bufio.NewReader(stdin)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil // the parent is gone already
		}
		return fmt.Errorf("read the order of the parent: %w", err)
	}
	given, err := parseOrder(line)
	if err != nil {
		return err
	}
	if given.Listen != "" {
		o.Listen = given.Listen
	}
	if given.Key != "" {
		o.Key = given.Key
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		cancel()
	}()
	told := o.Ready
	var toldErr error
	o.Ready = func(url, key string) {
		if toldErr = json.NewEncoder(stdout).Encode(ready{url, key}); toldErr != nil {
			cancel()
		}
		if told != nil {
			told(url, key)
		}
	}
	if err := Serve(ctx, o); err != nil {
		return err
	}
	if toldErr != nil {
		return fmt.Errorf("tell the parent: %w", toldErr)
	}
	return nil
}

// parseOrder reads the parent's line.
func parseOrder(line []byte) (order, error) {
	var o order
	if len(trimmed(line)) == 0 {
		return o, nil
	}
	if err := json.Unmarshal(line, &o); err != nil {
		return order{}, fmt.Errorf("order of the parent: %w", err)
	}
	return o, nil
}

// parseReady reads the child's line; ok is false for anything else that stands on its standard output.
func parseReady(line []byte) (r ready, ok bool) {
	line = trimmed(line)
	if len(line) == 0 || line[0] != '{' {
		return ready{}, false
	}
	err := json.Unmarshal(line, &r)
	return r, err == nil && r.URL != "" && r.Key != ""
}

func trimmed(line []byte) []byte {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r' || line[len(line)-1] == ' ') {
		line = line[:len(line)-1]
	}
	return line
}
