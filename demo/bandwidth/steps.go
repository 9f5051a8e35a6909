package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"

	"github.com/rgate/rgate/demo/docker"
)

const (
	kongName      = "kong-eu"
	kongImage     = "rgate-demo-kong:latest"
	kongContainer = "rgate-demo-kong"
)

func (d *demo) startContainers(ctx context.Context) error {
	d.Title("A backend, and a mock of Kong with its counters")
	if _, err := docker.Run(ctx, "run", "--detach", "--name", "rgate-demo-bandwidth-payment", "--hostname", "payment", "--no-healthcheck",
		"--label", ownLabel, "--label", "app_name=payment", "--label", "env=demo-bandwidth", "--env", "SERVICE=payment", docker.Image); err != nil {
		return err
	}
	if _, err := docker.Run(ctx, "run", "--detach", "--name", kongContainer, "--label", ownLabel, kongImage); err != nil {
		return err
	}
	return d.findKong(ctx)
}

// findKong sets the address of Kong's container.
func (d *demo) findKong(ctx context.Context) (err error) {
	if d.kong, err = docker.Run(ctx, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", kongContainer); err != nil {
		return err
	}
	if err := until(ctx, func() bool {
		response, err := http.Get("http://" + d.kong + ":8001/metrics")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	}); err != nil {
		return fmt.Errorf("waiting for Kong to respond: %w", err)
	}
	return nil
}

func (d *demo) startGateway(ctx context.Context) error {
	if err := d.choosePorts(); err != nil {
		return err
	}
	if err := d.writeConfig(); err != nil {
		return err
	}
	d.Title("The gateway: %s -c %s -p %d", binary, configFile, d.port)
	if err := d.launch(ctx); err != nil {
		return err
	}
	return d.await(ctx, "up")
}

// await waits until the source has the given status.
func (d *demo) await(ctx context.Context, status string) error {
	var last string
	err := until(ctx, func() bool {
		_, last, _ = d.get(restPath + "/sources")
		return strings.Contains(last, `"status":"`+status+`"`)
	})
	d.Say("%s", last)
	if err != nil {
		return fmt.Errorf("waiting for source status %s: %w", status, err)
	}
	return nil
}

// agree waits until the totals of a gateway equal the traffic counted by its clients,
// and checks them.
func (d *demo) agree(ctx context.Context, gateway string, want traffic) {
	var got traffic
	err := until(ctx, func() (same bool) {
		got, _ = d.total(gateway)
		return got == want
	})
	d.Check(err == nil, "%s: %d bytes in and %d out, exactly what clients sent and received (%d, %d)", gateway, got.ingress, got.egress, want.ingress, want.egress)
}

func (d *demo) useGateway(ctx context.Context) error {
	d.Title("200 downloads and 50 uploads through rgate")
	for i := range 200 {
		if status, _, err := d.get(fmt.Sprintf("/api/payment/file?bytes=%d", 1000+17*i)); err != nil || status != http.StatusOK {
			return fmt.Errorf("a download got status %d: %w", status, err)
		}
	}
	for i := range 50 {
		body := strings.Repeat("x", 100*i)
		response, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/api/payment/file?bytes=10", d.port), "text/plain", strings.NewReader(body))
		if err != nil {
			return err
		}
		response.Body.Close()
		d.own.ingress += int64(len(body))
		d.own.egress += 10
	}
	d.agree(ctx, "rgate", d.own)
	return nil
}

// sendThroughKong adds bytes to Kong's counters.
func (d *demo) sendThroughKong(ingress, egress int64) error {
	response, err := http.Post(fmt.Sprintf("http://%s:8001/traffic?service=bun-service&route=bun-route&ingress=%d&egress=%d", d.kong, ingress, egress), "", nil)
	if err != nil {
		return err
	}
	d.other.ingress += ingress
	d.other.egress += egress
	return response.Body.Close()
}

func (d *demo) useKong(ctx context.Context) error {
	d.Title("Traffic through Kong, which rgate reads every second")
	if err := d.sendThroughKong(254_000, 1_277_000); err != nil {
		return err
	}
	d.agree(ctx, kongName, d.other)
	return nil
}

func (d *demo) restartKong(ctx context.Context) error {
	d.Title("Kong restarts: its counters begin at zero again")
	if _, err := docker.Run(ctx, "restart", "--time", "1", kongContainer); err != nil {
		return err
	}
	if err := d.findKong(ctx); err != nil {
		return err
	}
	if err := d.sendThroughKong(1_000, 2_000); err != nil {
		return err
	}
	d.agree(ctx, kongName, d.other)
	return nil
}

func (d *demo) restartGateway(ctx context.Context) error {
	d.Title("rgate is stopped while Kong continues")
	d.stopGateway()
	if err := d.sendThroughKong(30_000, 70_000); err != nil {
		return err
	}
	if err := d.launch(ctx); err != nil {
		return err
	}
	d.agree(ctx, kongName, d.other)
	d.agree(ctx, "rgate", d.own)
	return nil
}

func (d *demo) loseKong(ctx context.Context) error {
	d.Title("Kong cannot be reached for a while")
	if _, err := docker.Run(ctx, "pause", kongContainer); err != nil {
		return err
	}
	err := d.await(ctx, "down")
	d.Check(err == nil, "the status of the source is down")
	if _, err := docker.Run(ctx, "unpause", kongContainer); err != nil {
		return err
	}
	if err := d.sendThroughKong(5_000, 6_000); err != nil {
		return err
	}
	d.agree(ctx, kongName, d.other)
	return nil
}

func (d *demo) show(context.Context) error {
	for _, query := range []string{
		"?lookback_duration=2m&type=egress&service=bun-service&route=bun-route",
		"/total?lookback_duration=5m&group_by=service",
		"?lookback_duration=1m&group_by=service&type=ingress&format=csv",
		"/names",
	} {
		d.Title("GET %s%s", restPath, query)
		status, body, err := d.get(restPath + query)
		if err != nil {
			return err
		}
		d.Say("%s", strings.NewReplacer("},{", "},\n {", "\r\n", "\n").Replace(body))
		d.Check(status == http.StatusOK, "%d", status)
	}
	d.Title("rgate usage --since 15m --config %s", configFile)
	out, err := exec.Command(binary, "usage", "--since", "15m", "--config", configFile).CombinedOutput()
	d.Say("%s", out)
	d.Check(err == nil && strings.Contains(string(out), "bun-service") && strings.Contains(string(out), "payment"), "both services are there")
	return nil
}
