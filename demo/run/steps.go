package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rgate/rgate/demo/assert"
	"github.com/rgate/rgate/demo/docker"
)

// demo holds the state of a run.
type demo struct {
	client *client
	port   int

	assert.Printer
}

func newDemo(port int) *demo {
	return &demo{client: newClient(port), port: port}
}

func (d *demo) startContainers(ctx context.Context) error {
	d.Title("Two backends with three containers each")
	for _, b := range backends {
		for i := range replicas {
			if err := b.start(ctx, i+1); err != nil {
				return err
			}
		}
		health := "no health check"
		if b.checked {
			health = "with a health check"
		}
		d.Say("%-8s %s: labels app_name=%s env=demo, %s", b.name, strings.Join(b.containers(), " "), b.name, health)
	}
	return nil
}

func (d *demo) startGateway(ctx context.Context) error {
	d.Title("The gateway: %s -c %s -p %d", binary, configFile, d.port)
	started := time.Now()
	ended, err := launchGateway(d.port)
	if err != nil {
		return err
	}
	exited := false
	err = d.until(ctx, func() bool {
		select {
		case <-ended:
			exited = true
		default:
		}
		a, err := d.client.fetch("/stats")
		return exited || err == nil && a.status == 200
	})
	if exited {
		return errors.New("the gateway exited at start")
	}
	if err != nil {
		return fmt.Errorf("waiting for the gateway: %w", err)
	}
	d.Say("ready %s after its start", since(started))
	for _, b := range backends {
		if err := d.awaitContainers(ctx, b, replicas); err != nil {
			return err
		}
		d.Say("%-8s all %d containers found after %s", b.name, replicas, since(started))
	}
	return nil
}

func (d *demo) splitLoad(context.Context) error {
	const requests = 2000
	d.Title("%d requests, half to each backend", requests)
	started := time.Now()
	l := d.client.send(requests, 16, backends[0].path+"/hello", backends[1].path+"/hello?page=2")
	_, containers := l.report()
	took := since(started)
	total, idle := 0, 0
	for _, b := range backends {
		for i := range replicas {
			n := containers[b.host(i+1)]
			total += n
			if n == 0 {
				idle++
			}
			d.Say("%-10s %4d  %s", b.host(i+1), n, bar(n, requests/2))
		}
	}
	d.Check(idle == 0, "every container was sent requests")
	d.Check(l.only(200) && total == requests, "every one of %d requests got 200 from a container, in %s", requests, took)
	return nil
}

func (d *demo) askUnknownPath(context.Context) error {
	d.Title("A path of no route: GET /nowhere")
	a, err := d.client.get("/nowhere")
	if err != nil {
		return err
	}
	d.Say("%d %q", a.status, a.body)
	d.Check(a.status == 403 && a.body == "This is not reachable", "the default response, exactly")
	return nil
}

// killOne kills one of three containers under load and checks that no request fails.
func (d *demo) killOne(ctx context.Context) error {
	b := backends[0]
	victim := b.host(1)
	d.Title("Under load, %s is killed and started again", victim)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	l, wait := d.client.keepSending(loading, 8, b.path+"/hello")
	watching, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	watched := d.watch(watching, l, b)

	if err := pause(ctx, 600*time.Millisecond); err != nil {
		return err
	}
	if _, err := docker.Run(ctx, "kill", b.container(1)); err != nil {
		return err
	}
	d.Say("docker kill %s", b.container(1))
	killed := time.Now()
	if err := pause(ctx, 900*time.Millisecond); err != nil {
		return err
	}
	lateResponse := l.lastResponse(victim).After(killed.Add(500 * time.Millisecond))
	if _, err := docker.Run(ctx, "start", b.container(1)); err != nil {
		return err
	}
	d.Say("docker start %s", b.container(1))
	started := time.Now()
	recovered := d.until(ctx, func() bool { return l.lastResponse(victim).After(started) })
	if recovered == nil {
		d.Say("%s responds again %s after docker start returned", victim, since(started))
	}
	if err := pause(ctx, 600*time.Millisecond); err != nil {
		return err
	}
	stopWatch()
	<-watched
	stop()
	wait()
	d.Check(!lateResponse, "the killed container got no more requests")
	d.Check(recovered == nil, "the started container is back")
	statuses, _ := l.report()
	d.Check(l.only(200), "no request failed: responses by status %v", statuses)
	return nil
}

// stopAll stops all containers of a backend. It checks that its requests receive 503
// and that another backend is not affected.
func (d *demo) stopAll(ctx context.Context) error {
	b, other := backends[0], backends[1]
	d.Title("All containers of %s are stopped", b.name)
	if _, err := docker.Run(ctx, append([]string{"stop"}, b.containers()...)...); err != nil {
		return err
	}
	d.Say("docker stop %s", strings.Join(b.containers(), " "))
	a, err := d.client.get(b.path + "/hello")
	if err != nil {
		return err
	}
	d.Say("%d, Retry-After: %s, %q", a.status, a.header.Get("Retry-After"), a.body)
	d.Check(a.status == 503 && a.header.Get("Retry-After") == "1", "503 with Retry-After")
	d.Check(d.client.send(50, 8, other.path+"/hello").only(200), "%s still responds", other.name)

	if _, err := docker.Run(ctx, "start", b.container(2)); err != nil {
		return err
	}
	d.Say("docker start %s", b.container(2))
	started := time.Now()
	if err := d.awaitContainers(ctx, b, 1); err != nil {
		return err
	}
	d.Say("%s responds again %s after docker start returned", b.name, since(started))
	_, err = docker.Run(ctx, append([]string{"start"}, b.containers()...)...)
	if err != nil {
		return err
	}
	return d.awaitContainers(ctx, b, replicas)
}

// failHealth makes a container unhealthy and checks that it receives no requests until
// it recovers.
func (d *demo) failHealth(ctx context.Context) error {
	b := backends[1]
	unhealthy := b.host(1)
	d.Title("%s becomes unhealthy", unhealthy)
	address, err := docker.Run(ctx, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", b.container(1))
	if err != nil {
		return err
	}
	began := time.Now()
	if err := d.setHealth(address, false); err != nil {
		return err
	}
	served := func() bool {
		_, containers := d.client.send(60, 8, b.path+"/hello").report()
		return containers[unhealthy] > 0
	}
	left := d.until(ctx, func() bool { return !served() })
	d.Check(left == nil, "it gets no more requests, %s later (Docker checks each second)", since(began))
	if err := d.setHealth(address, true); err != nil {
		return err
	}
	began = time.Now()
	back := d.until(ctx, served)
	d.Check(back == nil, "healthy again, it gets requests %s later", since(began))
	return nil
}

// statistics is the response body of GET /stats.
type statistics struct {
	Requests struct {
		Success int `json:"success"`
		Error   int `json:"error"`
	} `json:"requests_count"`
}

func (d *demo) showStatistics(context.Context) error {
	d.Title("Statistics: GET /stats")
	a, err := d.client.fetch("/stats")
	if err != nil {
		return err
	}
	d.Say("%s", a.body)
	var got statistics
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		return fmt.Errorf("reading the statistics: %w", err)
	}
	success, failed := d.client.totals()
	d.Check(got.Requests.Success == success && got.Requests.Error == failed,
		"every request was counted: %d that succeeded, %d that did not", success, failed)
	return nil
}

func (d *demo) showNextSteps() {
	d.Title("All %d checks passed. The gateway and its containers run on:", d.Checked())
	d.Say("curl %s%s/hello", d.client.base, backends[0].path)
	d.Say("curl %s/stats", d.client.base)
	d.Say("docker stop %s    and see which containers respond", backends[1].container(2))
	d.Say("demo/requests.http has a request for everything else, %s the gateway's log.", logFile)
	d.Say("make demo-down    removes all of it")
}

var errTooLate = errors.New("the expected state was not reached within 15s")

// until waits until condition returns true, for at most 15 seconds.
func (d *demo) until(ctx context.Context, condition func() bool) error {
	deadline := time.Now().Add(15 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			return errTooLate
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// awaitContainers waits until n containers of a backend have responded.
func (d *demo) awaitContainers(ctx context.Context, b backend, n int) error {
	var seen []string
	err := d.until(ctx, func() bool {
		a, err := d.client.get(b.path + "/hello")
		if err == nil && a.status == 200 && !slices.Contains(seen, a.container) {
			seen = append(seen, a.container)
		}
		return len(seen) >= n
	})
	if err != nil {
		return fmt.Errorf("waiting for %d containers of %s, of which %v responded: %w", n, b.name, seen, err)
	}
	return nil
}
