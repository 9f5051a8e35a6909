package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/rgate/rgate/demo/docker"
)

// ownLabel identifies the containers of the demo.
const ownLabel = "chaos=rgate"

// host returns the hostname of a container. Responses contain it.
func host(i int) string { return fmt.Sprintf("ring-%d", i) }

// container returns the name of a container.
func container(i int) string { return "rgate-chaos-" + host(i) }

func startContainer(ctx context.Context, i int) error {
	_, err := docker.Run(ctx, "run", "--detach", "--name", container(i), "--hostname", host(i),
		"--label", ownLabel, "--no-healthcheck", docker.Image)
	return err
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
