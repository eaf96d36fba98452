//go:build !linux

package chaos

import (
	"context"
	"os"
	"os/exec"
)

// Apart is for Linux alone.
func Apart(*exec.Cmd) error { return errNoNetwork }

func newNetwork(context.Context) (*network, error) { return nil, errNoNetwork }

func (n *network) newHost(context.Context) (*host, error) {
	if n != nil {
		return nil, errNoNetwork
	}
	return &host{}, nil
}

func inSpace(_, _ *os.File, _ func() error) error { return errNoNetwork }

func ip(context.Context, *os.File, ...string) error { return errNoNetwork }
