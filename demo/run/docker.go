package main

import (
	"context"
	"fmt"

	"github.com/rgate/rgate/demo/docker"
)

// ownLabel identifies the containers of the demo.
const ownLabel = "demo=rgate"

// backend is a service of the demo.
type backend struct {
	name string
	path string

	// Whether the containers have a health check. They receive requests after the first
	// passed check, about a second after their start.
	checked bool
}

var backends = []backend{
	{name: "payment", path: "/api/payment"},
	{name: "orders", path: "/api/orders", checked: true},
}

const replicas = 3

// host returns the hostname of a container. Responses contain it.
func (b backend) host(i int) string { return fmt.Sprintf("%s-%d", b.name, i) }

// container returns the name of a container.
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

// down stops the gateway and removes the containers of an earlier run.
func down(ctx context.Context) error {
	if err := stopGateway(ctx); err != nil {
		return err
	}
	return docker.Remove(ctx, ownLabel)
}
