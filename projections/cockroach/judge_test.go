package cockroach

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestOnlyWhatIsAboutValuesIsPermanent(t *testing.T) {
	t.Parallel()
	for code, permanent := range map[string]bool{
		"22021": true, "23514": true, "40001": false, "57P01": false, "53300": false, "08006": false, "42P01": false,
	} {
		err := judge(&pgconn.PgError{Code: code, Message: "secret", Detail: "secret"})
		var says interface{ Temporary() bool }
		if got := errors.As(err, &says) && !says.Temporary(); got != permanent {
			t.Errorf("%s: want permanent=%v, got %v", code, permanent, got)
		}
		if permanent && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error quotes the value: %v", code, err)
		}
	}
	if away := errors.New("connection refused"); !errors.Is(judge(away), away) {
		t.Error("another error does not pass")
	}
}
