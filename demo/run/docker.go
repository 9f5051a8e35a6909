package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	image = "rgate-demo-backend:latest"

	// Every container of the demo carries this label, and nothing else does.
	ownLabel = "demo=rgate"
)

// backend is one of the demo's services.
type backend struct {
	name string
	path string

	// Whether its containers have a health check: then each is sent requests only
	// after its first success, about a second after its start.
	checked bool
}

var backends = []backend{
	{name: "payment", path: "/api/payment"},
	{name: "orders", path: "/api/orders", checked: true},
}

const replicas = 3

// host is a container's name for itself, which it puts into its answers.
func (b backend) host(i int) string { return fmt.Sprintf("%s-%d", b.name, i) }

// container is its name for Docker.
func (b backend) container(i int) string { return "rgate-demo-" + b.host(i) }

func (b backend) containers() (names []string) {
	for i := range replicas {
		names = append(names, b.container(i+1))
	}
	return names
}

func (b backend) start(ctx context.Context, i int) error {
	args := []string{
		"run", "--detach", "--name", b.container(i), "--hostname", b.host(i),
		"--label", ownLabel, "--label", "app_name=" + b.name, "--label", "env=demo",
		"--env", "SERVICE=" + b.name,
	}
	if !b.checked {
		args = append(args, "--no-healthcheck")
	}
	_, err := docker(ctx, append(args, image)...)
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

// down ends the gateway and removes the containers of an earlier run, if any.
func down(ctx context.Context) error {
	if err := stopGateway(ctx); err != nil {
		return err
	}
	ids, err := docker(ctx, "ps", "--all", "--quiet", "--filter", "label="+ownLabel)
	if err != nil || ids == "" {
		return err
	}
	_, err = docker(ctx, append([]string{"rm", "--force", "--volumes"}, strings.Fields(ids)...)...)
	return err
}
