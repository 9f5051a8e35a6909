package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	image = "rgate-demo-backend:latest"
	label = "bench=rgate"

	// The path of all requests. The response body has 61 bytes.
	target = "/api/bench/plain"
)

// peer is a gateway to measure.
type peer struct {
	name string

	// The configuration, written to a file. The file name replaces FILE in args.
	config func(setup) string
	file   string
	args   []string

	// Additional environment variables.
	environment []string
}

// setup holds the settings of a gateway's configuration.
type setup struct {
	folder   string
	port     int      // the port of this gateway
	backends []string // host:port
}

const (
	nameDirect = "no gateway"
	nameCaddy  = "Caddy `reverse_proxy`, static upstreams"
	nameRgate  = "rgate: route, Docker discovery, statistics, 503 mapping"
)

// runCaddyfile is the command line for a Caddyfile.
var runCaddyfile = []string{"bin/rgate", "run", "--adapter", "caddyfile", "--config", "FILE"}

var peers = []peer{
	{name: "nginx", config: nginx, file: "nginx.conf", args: []string{"nginx", "-e", "stderr", "-c", "FILE", "-g", "daemon off;"}},
	{name: "haproxy", config: haproxy, file: "haproxy.cfg", args: []string{"haproxy", "-db", "-f", "FILE"}},
	{name: nameCaddy, config: caddyStatic, file: "static.Caddyfile", args: runCaddyfile},
	// rgate sets GOGC=400 by default. Measure its effect on Caddy.
	{name: nameCaddy + ", GOGC=400", config: caddyStatic, file: "static400.Caddyfile", args: runCaddyfile, environment: []string{"GOGC=400"}},
	{name: "Caddy `reverse_proxy`, `dynamic docker_labels`", config: caddyDynamic, file: "dynamic.Caddyfile", args: runCaddyfile},
	{name: nameRgate, config: rgate, file: "rgate.yaml", args: []string{"bin/rgate", "-c", "FILE", "-p", "PORT"}},
}

func nginx(s setup) string {
	var servers strings.Builder
	for _, backend := range s.backends {
		fmt.Fprintf(&servers, "server %s; ", backend)
	}
	return fmt.Sprintf(`
worker_processes auto;
pid %[1]s/nginx.pid;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	keepalive_requests 100000000;
	upstream backends { random; keepalive 64; keepalive_requests 100000000; %[2]s}
	server {
		listen 127.0.0.1:%[3]d;
		location / {
			proxy_pass http://backends;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		}
	}
}
`, s.folder, servers.String(), s.port)
}

func haproxy(s setup) string {
	var servers strings.Builder
	for i, backend := range s.backends {
		fmt.Fprintf(&servers, "\tserver s%d %s\n", i, backend)
	}
	return fmt.Sprintf(`
global
	maxconn 4096
defaults
	mode http
	timeout connect 3s
	timeout client 60s
	timeout server 60s
	option forwardfor
	http-reuse always
frontend gateway
	bind 127.0.0.1:%d
	default_backend backends
backend backends
	balance random
%s`, s.port, servers.String())
}

// Proxying only: no TLS, no storage.
const caddyHead = `{
	admin off
	persist_config off
	auto_https off
}
`

func caddyStatic(s setup) string {
	return fmt.Sprintf("%shttp://127.0.0.1:%d {\n\treverse_proxy %s\n}\n", caddyHead, s.port, strings.Join(s.backends, " "))
}

func caddyDynamic(s setup) string {
	return fmt.Sprintf("%shttp://127.0.0.1:%d {\n\treverse_proxy {\n\t\tdynamic docker_labels %s\n\t}\n}\n", caddyHead, s.port, label)
}

func rgate(setup) string {
	return fmt.Sprintf(`routes:
  - path_prefix: /api/bench
    backend: bench
  - path_prefix: /api/other
    backend: bench
default_response: {body: "This is not reachable", status_code: 403}
backends:
  - name: bench
    match_labels: [%s]
`, label)
}

// start starts the gateway and waits for its first response.
func (p peer) start(ctx context.Context, s setup) (*process, error) {
	file := filepath.Join(s.folder, p.file)
	if err := os.WriteFile(file, []byte(p.config(s)), 0o644); err != nil {
		return nil, err
	}
	args := make([]string, len(p.args))
	for i, arg := range p.args {
		args[i] = strings.NewReplacer("FILE", file, "PORT", strconv.Itoa(s.port)).Replace(arg)
	}
	environment := append([]string{
		"CADDY_ADMIN=unix/" + filepath.Join(s.folder, p.file+".sock"),
		"XDG_CONFIG_HOME=" + s.folder,
		"XDG_DATA_HOME=" + s.folder,
	}, p.environment...)
	running, err := launch(environment, args[0], args[1:]...)
	if err != nil {
		return nil, err
	}
	if err := running.await(ctx, urlOf(fmt.Sprintf("127.0.0.1:%d", s.port))); err != nil {
		running.stop()
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	return running, nil
}

func urlOf(address string) string { return "http://" + address + target }

// startBackends starts n containers that listen on the host's loopback interface.
func startBackends(ctx context.Context, n int) (addresses []string, stop func(), err error) {
	var ids []string
	stop = func() {
		if len(ids) > 0 {
			_ = exec.Command("docker", append([]string{"rm", "--force"}, ids...)...).Run()
		}
	}
	for range n {
		port, err := freePort()
		if err != nil {
			return nil, stop, err
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		// The address label is required if the benchmark runs in a container.
		id, err := exec.CommandContext(ctx, "docker", "run", "--detach", "--network", "host", "--no-healthcheck",
			"--label", label, "--label", "rgate.address=127.0.0.1", "--label", fmt.Sprintf("rgate.port=%d", port),
			image, "-listen", address).Output()
		if err != nil {
			return nil, stop, fmt.Errorf("starting a backend: %w", err)
		}
		ids = append(ids, strings.TrimSpace(string(id)))
		addresses = append(addresses, address)
	}
	return addresses, stop, nil
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
