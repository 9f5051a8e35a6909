// Package docker runs the Docker CLI for the demos.
package docker

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Image is the image of demo/backend. hack/image builds it.
const Image = "rgate-demo-backend:latest"

// Run runs a docker command with a timeout of one minute and returns its output.
func Run(ctx context.Context, args ...string) (string, error) {
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

// Remove removes all running and stopped containers with a label.
func Remove(ctx context.Context, label string) error {
	ids, err := Run(ctx, "ps", "--all", "--quiet", "--filter", "label="+label)
	if err != nil || ids == "" {
		return err
	}
	_, err = Run(ctx, append([]string{"rm", "--force", "--volumes"}, strings.Fields(ids)...)...)
	return err
}
