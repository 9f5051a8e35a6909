package main

import (
	"context"
	"fmt"

	"github.com/rgate/rgate/demo/docker"
)

// ownLabel is on every container of this demo, and on no other.
const ownLabel = "demo=rgate"

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

// host is a container's hostname, which is in its responses.
func (b backend) host(i int) string { return fmt.Sprintf("%s-%d", b.name, i) }

// container is the container's name.
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
	_, err := docker.Run(ctx, append(args, docker.Image)...)
	return err
}

// down ends the gateway and removes the containers of an earlier run, if any.
func down(ctx context.Context) error {
	if err := stopGateway(ctx); err != nil {
		return err
	}
	return docker.Remove(ctx, ownLabel)
}
