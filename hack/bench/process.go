package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of CPU time in /proc/PID/stat: 10 ms on all architectures.
const tick = time.Second / 100

// process is the process group of a gateway.
type process struct {
	cmd    *exec.Cmd
	output *bytes.Buffer
	ended  chan struct{}
}

func launch(environment []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), output: new(bytes.Buffer), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.Env = append(os.Environ(), environment...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait()
	}()
	return p, nil
}

// stop sends SIGTERM to the group, then SIGKILL.
func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(3 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

// await waits until url responds with 200.
func (p *process) await(ctx context.Context, url string) error {
	client := &http.Client{Timeout: time.Second}
	deadline := time.Now().Add(15 * time.Second)
	for {
		response, err := client.Get(url)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("unexpected status %s", response.Status)
		}
		select {
		case <-p.ended:
			return fmt.Errorf("the process exited: %s", p.output)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting for status 200: %w", err)
		}
	}
}

// usage holds the resource usage of a process group.
type usage struct {
	cpu    time.Duration
	memory int64 // resident memory in bytes
}

// usage returns the usage of all processes in the group.
func (p *process) usage() (usage, error) {
	var sum usage
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return sum, err
	}
	found := false
	for _, file := range stats {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // the process has exited
		}
		group, used, err := parseStat(string(content))
		if err != nil {
			return sum, fmt.Errorf("reading %s: %w", file, err)
		}
		if group == p.cmd.Process.Pid {
			found = true
			sum.cpu += used.cpu
			sum.memory += used.memory
		}
	}
	if !found {
		return sum, fmt.Errorf("the process exited: %s", p.output)
	}
	return sum, nil
}

// parseStat parses /proc/PID/stat (proc(5)).
func parseStat(line string) (group int, used usage, err error) {
	// The second field, the name, is in parentheses and may contain any character.
	end := strings.LastIndexByte(line, ')')
	fields := strings.Fields(line[end+1:]) // fields[0] is field 3 in proc(5)
	if end < 0 || len(fields) < 22 {
		return 0, used, fmt.Errorf("unexpected content %q", line)
	}
	var numbers [4]int64 // group, user time, system time, pages
	for i, field := range []int{2, 11, 12, 21} {
		if numbers[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return 0, used, err
		}
	}
	used.cpu = time.Duration(numbers[1]+numbers[2]) * tick
	used.memory = numbers[3] * int64(os.Getpagesize())
	return int(numbers[0]), used, nil
}
