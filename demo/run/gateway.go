package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	binary     = "bin/rgate"
	configFile = "demo/rgate.yaml"
	stateDir   = "bin/demo"
	logFile    = stateDir + "/rgate.log"
	pidFile    = stateDir + "/rgate.pid"
)

// launchGateway starts the gateway as a process that outlives the demo. The channel
// receives its exit error.
func launchGateway(port int) (ended <-chan error, err error) {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	state, err := filepath.Abs(stateDir)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "-c", configFile, "-p", strconv.Itoa(port))
	cmd.Stdout, cmd.Stderr = log, log
	// Avoid conflicts with another Caddy on this machine.
	cmd.Env = append(os.Environ(),
		"CADDY_ADMIN=unix/"+filepath.Join(state, "admin.sock"),
		"XDG_CONFIG_HOME="+state,
		"XDG_DATA_HOME="+state,
	)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the gateway: %w", err)
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return nil, errors.Join(err, cmd.Process.Kill())
	}
	exit := make(chan error, 1)
	go func() { exit <- cmd.Wait() }()
	return exit, nil
}

// stopGateway gracefully stops the gateway of an earlier run, if any.
func stopGateway(ctx context.Context) error {
	written, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(written)))
	if err != nil {
		return fmt.Errorf("reading %s: %w: remove the file", pidFile, err)
	}
	for sent := false; isGateway(pid); sent = true {
		if !sent {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				return fmt.Errorf("ending the gateway: %w", err)
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return os.Remove(pidFile)
}

// isGateway reports whether pid is the demo's gateway. The PID may have been reused by
// another process.
func isGateway(pid int) bool {
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && bytes.Contains(cmdline, []byte(configFile))
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
