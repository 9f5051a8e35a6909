package integration

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"github.com/rgate/rgate/internal/testkit"
)

func TestE3TheBackendSeesTheClientsHost(t *testing.T) {
	t.Parallel()
	secure := spec{args: []string{"-listen-tls", ":8443"}, labels: map[string]string{"role": "tls", "rgate.port": "8443", "rgate.scheme": "https"}}
	b := startContainer(t, secure)
	address := b.ip + ":8443"
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
}
:$PORT {
	handle /alone {
		reverse_proxy {
			dynamic docker_labels app_name=$APP role=tls {
				scheme https
			}
			transport http {
				tls_insecure_skip_verify
			}
		}
	}
	handle /alone-set {
		reverse_proxy {
			dynamic docker_labels app_name=$APP role=tls {
				scheme https
			}
			header_up Host {upstream_hostport}
			transport http {
				tls_insecure_skip_verify
			}
		}
	}
	handle /old {
		rgate {
			name old
			legacy container_host
			route /old web
			backend web {
				match_labels app_name=$APP role=tls
				scheme https
				proxy {
					transport http {
						tls_insecure_skip_verify
					}
				}
			}
		}
	}
	rgate {
		route /option option
		route /limited option {
			timeouts {
				first_byte 5s
			}
		}
		route /label label
		route /set set
		route /dial dial
		backend option {
			match_labels app_name=$APP role=tls
			scheme https
			proxy {
				transport http {
					tls_insecure_skip_verify
				}
			}
		}
		backend label {
			match_labels app_name=$APP role=tls
			proxy {
				transport http {
					tls_insecure_skip_verify
				}
			}
		}
		backend set {
			match_labels app_name=$APP role=tls
			scheme https
			proxy {
				header_up Host own.example.com
				transport http {
					tls_insecure_skip_verify
				}
			}
		}
		backend dial {
			dial $DIAL
			scheme https
			proxy {
				transport http {
					tls_insecure_skip_verify
				}
			}
		}
	}
}
`, "$DIAL", address), nil, "run", "--config", "$FILE")
	g.await(t, "option", 1)
	for path, want := range map[string]string{
		"/option": "shop.example.com", "/limited": "shop.example.com", "/label": "shop.example.com", "/alone": "shop.example.com",
		"/set": "own.example.com", "/dial": address, "/alone-set": address, "/old": address,
	} {
		r := g.request(t, http.MethodGet, path, "")
		r.Host = "shop.example.com"
		got, err := do(g.client, r)
		must(t, path, err)
		if e := got.echo(t); e.Host != want || !e.TLS {
			t.Errorf("%s: the backend sees Host %s over TLS %v, want %s", path, e.Host, e.TLS, want)
		}
	}
	// A request without Host gets the address.
	if got := g.raw(t, "GET /option HTTP/1.0\r\n\r\n"); !strings.Contains(got, fmt.Sprintf(`"host":%q`, address)) && !strings.Contains(got, fmt.Sprintf(`"host": %q`, address)) {
		t.Errorf("HTTP/1.0 without Host: got %s", got)
	}
	if n := strings.Count(g.output.String(), "containers with HTTPS get the client's Host"); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

// connectAt attaches the container to a network with a fixed address.
func (b *box) connectAt(t *testing.T, name, ip string) {
	t.Helper()
	must(t, "connecting "+b.name, engine.NetworkConnect(t.Context(), name, b.id,
		&network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: ip}}))
}

// makeSubnet creates a Docker network of 16 addresses. host returns an address in it.
func makeSubnet(t *testing.T) (name string, host func(n int) string) {
	t.Helper()
	requireEngine(t)
	name = strings.ToLower(appOf(t)) + "-subnet"
	for i := range 100 { // skip subnets that are in use
		prefix := fmt.Sprintf("10.213.%d", (freePort(t)+i)%250)
		created, err := engine.NetworkCreate(t.Context(), name, network.CreateOptions{
			Labels: map[string]string{runLabel: runID},
			IPAM:   &network.IPAM{Config: []network.IPAMConfig{{Subnet: prefix + ".0/28"}}},
		})
		if err != nil && i < 99 {
			continue
		}
		must(t, "making network "+name, err)
		t.Cleanup(func() { _ = engine.NetworkRemove(t.Context(), created.ID) })
		return name, func(n int) string { return prefix + "." + strconv.Itoa(n) }
	}
	panic("unreachable")
}

func TestE13AReusedAddressGetsNoOldConnections(t *testing.T) {
	t.Parallel()
	subnet, address := makeSubnet(t)
	listening := spec{args: []string{"-listen", ":8080", "-listen-tls", ":8443"}, ports: []string{"8443/tcp"}, created: true}
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
}
:$PORT {
	handle /alone {
		reverse_proxy {
			dynamic docker_labels app_name=$APP {
				port 8080
				network $NET
			}
		}
	}
	handle /alone-tls {
		reverse_proxy {
			dynamic docker_labels app_name=$APP {
				port 8443
				network $NET
				scheme https
			}
			transport http {
				tls_insecure_skip_verify
			}
		}
	}
	rgate {
		route /h1 h1
		route /h2c h2c
		route /tls tls
		backend h1 {
			match_labels app_name=$APP
			port 8080
			network $NET
		}
		backend h2c {
			match_labels app_name=$APP
			port 8080
			network $NET
			scheme h2c
		}
		backend tls {
			match_labels app_name=$APP
			port 8443
			network $NET
			scheme https
			proxy {
				transport http {
					tls_insecure_skip_verify
				}
			}
		}
	}
}
`, "$NET", subnet), nil, "run", "--config", "$FILE")
	paths := []string{"/h1", "/h2c", "/tls", "/alone", "/alone-tls"}
	post := func(of string) {
		for _, path := range paths {
			got := g.ask(t, http.MethodPost, path, "payload")
			if got.status != 200 || got.header.Get("X-Container") != of {
				t.Errorf("POST %s: got %d by container %s, want %s: %s", path, got.status, got.header.Get("X-Container"), of, got.body)
			}
		}
	}
	run := func() *box {
		b := startContainer(t, listening)
		b.connectAt(t, subnet, address(9))
		must(t, "starting", engine.ContainerStart(t.Context(), b.id, container.StartOptions{}))
		b.ip = address(9)
		b.awaitPort(t, 8080)
		b.awaitPort(t, 8443)
		g.await(t, "h1", 1)
		return b
	}
	first := run()
	post(first.id[:12])
	before := g.get(t, "/h1").echo(t)
	first.disconnect(t, subnet) // it goes on running in the default network
	g.await(t, "h1", 0)
	second := run()
	post(second.id[:12])
	post(second.id[:12])
	if after := g.get(t, "/h1").echo(t); after.Local != before.Local {
		t.Errorf("the successor has address %s, not %s", after.Local, before.Local)
	}
}

func TestE12AConnectionNeverEndsAtTheGateway(t *testing.T) {
	t.Parallel()
	here := bridgeAddress(t)
	g := launch(t, "Caddyfile", `{
	admin 0.0.0.0:$ADMIN {
		origins localhost:$ADMIN admin.example
	}
}
:$PORT {
	handle /alone/* {
		uri strip_prefix /alone
		reverse_proxy {
			dynamic docker_labels app_name=$APP role=label
		}
	}
	rgate {
		route /label label {
			strip_prefix
		}
		route /name name {
			strip_prefix
		}
		route /host host {
			strip_prefix
		}
		route /allowed allowed {
			strip_prefix
		}
		backend label {
			match_labels app_name=$APP role=label
			proxy {
				header_up Host admin.example
			}
		}
		backend name {
			match_labels app_name=$APP role=name
		}
		backend host {
			match_labels app_name=$APP role=host
			proxy {
				header_up Host admin.example
			}
		}
		backend allowed {
			match_labels app_name=$APP role=label
			include local_addresses
			proxy {
				header_up Host admin.example
			}
		}
	}
}
`, nil, "run", "--config", "$FILE")
	admin := strconv.Itoa(g.admin)
	loopback := serve(t, func(http.ResponseWriter, *http.Request) {})
	_, port, err := net.SplitHostPort(loopback)
	must(t, "reading the port", err)
	startContainer(t, spec{labels: map[string]string{"role": "label", "rgate.address": here, "rgate.port": admin}})
	startContainer(t, spec{labels: map[string]string{"role": "name", "rgate.address": "localhost", "rgate.port": port}})
	startContainer(t, spec{host: true, args: []string{"-listen", "127.0.0.1:" + strconv.Itoa(freePort(t))},
		labels: map[string]string{"role": "host", "rgate.port": admin}})
	g.await(t, "label", 1)
	g.await(t, "host", 1)
	g.await(t, "allowed", 1)
	for _, path := range []string{"/label", "/host", "/alone", "/name"} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if got := g.ask(t, method, path+"/config/", "{}"); got.status == 200 || strings.Contains(got.body, "apps") {
				t.Errorf("%s %s: got %d %s", method, path, got.status, got.body)
			}
		}
	}
	if got := g.get(t, "/allowed/config/"); got.status != 200 || !strings.Contains(got.body, "apps") {
		t.Errorf("include local_addresses: got %d %s", got.status, got.body)
	}
	testkit.Eventually(t, "the log contains the reason", func() bool {
		return strings.Contains(g.output.String(), "belongs to a listener of this gateway")
	})
}
