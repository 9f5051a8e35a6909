package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rgate/rgate/demo/assert"
)

const (
	binary     = "bin/rgate"
	stateDir   = "bin/demo-bandwidth"
	configFile = stateDir + "/rgate.yaml"
	logFile    = stateDir + "/rgate.log"
)

// config is the configuration of the gateway. Its format verbs are the admin address, a
// directory and the address of Kong.
const config = `# Made by demo/bandwidth.
admin: %s
routes:
  - path_prefix: /api/payment
    backend: payment
backends:
  - name: payment
    match_labels: {app_name: payment, env: demo-bandwidth}
bandwidth:
  path: /metrics/bandwidth_used
  store: sqlite://%s/bandwidth.db
  sources:
    - {name: kong-eu, url: "http://%s:8001/metrics", interval: 1s}
`

// demo holds the state of a run.
type demo struct {
	port    int
	admin   string
	kong    string // the address of Kong
	gateway *exec.Cmd
	ended   chan struct{}

	// The body bytes that the clients of each gateway sent and received.
	own, other traffic

	assert.Printer
}

type traffic struct{ ingress, egress int64 }

var errTimeout = errors.New("timed out after 20s")

// until waits until condition returns true, for at most 20 seconds.
func until(ctx context.Context, condition func() bool) error {
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			return errTimeout
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// choosePorts selects two free ports.
func (d *demo) choosePorts() error {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	d.port, d.admin = ports[0], "localhost:"+strconv.Itoa(ports[1])
	return nil
}

func (d *demo) writeConfig() error {
	state, err := filepath.Abs(stateDir)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(state); err != nil {
		return err
	}
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	return os.WriteFile(configFile, fmt.Appendf(nil, config, d.admin, state, d.kong), 0o644)
}

// launch starts the gateway with logs in logFile.
func (d *demo) launch(ctx context.Context) error {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	d.gateway = exec.Command(binary, "-c", configFile, "-p", strconv.Itoa(d.port))
	d.gateway.Stdout, d.gateway.Stderr = log, log
	d.gateway.Env = append(os.Environ(), "XDG_CONFIG_HOME="+stateDir, "XDG_DATA_HOME="+stateDir)
	if err := d.gateway.Start(); err != nil {
		return fmt.Errorf("starting the gateway: %w", err)
	}
	d.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // the exit status is not used
		close(ended)
	}(d.gateway, d.ended)
	if err := until(ctx, func() bool {
		status, _, err := d.get("/api/payment/hello")
		return err == nil && status == http.StatusOK
	}); err != nil {
		return fmt.Errorf("waiting for the gateway to respond: %w", err)
	}
	return nil
}

// stopGateway stops the gateway gracefully if it is running.
func (d *demo) stopGateway() {
	if d.gateway == nil {
		return
	}
	_ = d.gateway.Process.Signal(syscall.SIGTERM) // the process may have exited
	<-d.ended
	d.gateway = nil
}

// get sends a request to the gateway. It counts the bytes if the target is a route.
func (d *demo) get(target string) (status int, body string, err error) {
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", d.port, target))
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if strings.HasPrefix(target, "/api/") {
		d.own.egress += int64(len(content))
	}
	return response.StatusCode, string(content), err
}

const restPath = "/metrics/bandwidth_used"

// total returns a gateway's traffic from the REST API.
func (d *demo) total(gateway string) (t traffic, err error) {
	_, body, err := d.get(restPath + "/total?lookback_duration=60m&group_by=gateway")
	if err != nil {
		return t, err
	}
	var usage struct {
		Totals []struct {
			Type, Gateway string
			Used          int64 `json:"bandwidth_used"`
		}
	}
	if err := json.Unmarshal([]byte(body), &usage); err != nil {
		return t, fmt.Errorf("reading %s: %w", body, err)
	}
	for _, one := range usage.Totals {
		if (one.Gateway == kongName) != (gateway == kongName) {
			continue
		}
		if one.Type == "ingress" {
			t.ingress += one.Used
		} else {
			t.egress += one.Used
		}
	}
	return t, nil
}
