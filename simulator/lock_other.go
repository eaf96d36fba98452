//go:build !unix

package simulator

import (
	"fmt"
	"os"
	"path/filepath"
)

// lockDir opens the lock file; here nothing keeps a second simulator out.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the simulator's directory: %w", err)
	}
	return f, nil
}
