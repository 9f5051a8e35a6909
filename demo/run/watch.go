package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// watch prints the responding containers four times a second until ctx is done.
func (d *demo) watch(ctx context.Context, l *load, b backend) (ended <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		before, containersBefore := l.report()
		for pause(ctx, 250*time.Millisecond) == nil {
			statuses, containers := l.report()
			var line strings.Builder
			fmt.Fprintf(&line, "│ 200: %3d  other: %d  │", statuses[200]-before[200], others(statuses)-others(before))
			for i := range replicas {
				host := b.host(i + 1)
				fmt.Fprintf(&line, "  %s %3d", host, containers[host]-containersBefore[host])
			}
			d.Say("%s", line.String())
			before, containersBefore = statuses, containers
		}
	}()
	return done
}

func others(statuses map[int]int) (n int) {
	for status, count := range statuses {
		if status != http.StatusOK {
			n += count
		}
	}
	return n
}

// bar returns a text bar for the ratio of n to whole.
func bar(n, whole int) string { return strings.Repeat("▇", n*40/whole) }

// since returns the rounded time since t.
func since(t time.Time) string {
	d := time.Since(t)
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

// setHealth sets the health of the container at an address, without the gateway.
func (d *demo) setHealth(address string, up bool) error {
	value := map[bool]string{true: "1", false: "0"}[up]
	response, err := d.client.http.Post("http://"+address+":8080/healthz?up="+value, "", nil)
	if err != nil {
		return fmt.Errorf("switching the health: %w", err)
	}
	return response.Body.Close()
}
