package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	image    = "rgate-demo-backend:latest"
	ownLabel = "chaos=rgate"
)

// host is a container's name for itself, which it puts into its answers.
func host(i int) string { return fmt.Sprintf("ring-%d", i) }

// container is its name for Docker.
func container(i int) string { return "rgate-chaos-" + host(i) }

func startContainer(ctx context.Context, i int) error {
	_, err := docker(ctx, "run", "--detach", "--name", container(i), "--hostname", host(i),
		"--label", ownLabel, "--no-healthcheck", image)
	return err
}

func removeContainers(ctx context.Context) error {
	ids, err := docker(ctx, "ps", "--all", "--quiet", "--filter", "label="+ownLabel)
	if err != nil || ids == "" {
		return err
	}
	_, err = docker(ctx, append([]string{"rm", "--force", "--volumes"}, strings.Fields(ids)...)...)
	return err
}

// docker runs a command of the command line client and returns what it printed.
func docker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("running docker %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}

const config = `admin: off
routes:
  - path_prefix: /
    backend: ring
backends:
  - name: ring
    match_labels: [chaos=rgate]
    lb_policy: {policy: ring_hash, key: "{http.request.header.X-Key}"}
`

type gateway struct {
	base   string
	folder string
	cmd    *exec.Cmd
}

func startGateway() (*gateway, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, err
	}
	if err := listener.Close(); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "rgate-chaos-")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(folder, "rgate.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(folder, "rgate.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	g := &gateway{base: "http://127.0.0.1:" + port, folder: folder, cmd: exec.Command("bin/rgate", "-c", file, "-p", port)}
	g.cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+folder, "XDG_DATA_HOME="+folder)
	g.cmd.Stdout, g.cmd.Stderr = log, log
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the gateway: %w", err)
	}
	return g, nil
}

func (g *gateway) stop() {
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	_ = g.cmd.Wait()
	_ = os.RemoveAll(g.folder)
}
