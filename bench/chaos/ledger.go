package chaos

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/campanile-push/campanile/schemas"
)

// taken is one push that the simulator accepted.
type taken struct {
	id        schemas.ID
	token     uint64
	transport schemas.Transport
	timeUS    int64
}

// ask reads an answer of the simulator's admin API.
func (w *world) ask(ctx context.Context, path string, read func(io.Reader) error) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.sim.Admin+path, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("ask the simulator: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the simulator for %s: %s", path, answer.Status)
	}
	return read(answer.Body)
}

// sickFor is how long a provider is unavailable: about as long as a settled cluster needs to have many sends in its retry topics.
const sickFor = "1500ms"

// sicken makes a provider unavailable for a moment.
func (w *world) sicken(ctx context.Context, provider string) error {
	body := fmt.Sprintf(`{"provider":%q,"for":%q}`, provider, sickFor)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.sim.Admin+"/brownout", strings.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("make %s unavailable: %w", provider, err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("make %s unavailable: %s", provider, answer.Status)
	}
	return nil
}

// delivered is how many pushes the ledger has.
func (w *world) delivered(ctx context.Context) (int64, error) {
	var summary struct{ Accepted int64 }
	err := w.ask(ctx, "/ledger", func(in io.Reader) error { return json.NewDecoder(in).Decode(&summary) })
	return summary.Accepted, err
}

// ledger is every push in the order of acceptance.
func (w *world) ledger(ctx context.Context) (all []taken, err error) {
	err = w.ask(ctx, "/ledger/export", func(in io.Reader) error {
		all, err = readLedger(in)
		return err
	})
	return all, err
}

// readLedger reads the simulator's export: time_us, provider, environment, app, token_hash, notification_id, and more.
func readLedger(in io.Reader) (all []taken, err error) {
	lines := csv.NewReader(in)
	lines.ReuseRecord = true
	if _, err := lines.Read(); err != nil {
		return nil, fmt.Errorf("read the ledger's header: %w", err)
	}
	for {
		fields, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		var t taken
		if t.timeUS, err = strconv.ParseInt(fields[0], 10, 64); err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		if t.transport, err = schemas.ParseTransport(fields[1]); err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		if t.token, err = strconv.ParseUint(fields[4], 16, 64); err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		if t.id, err = schemas.ParseID(fields[5]); err != nil {
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		all = append(all, t)
	}
}
