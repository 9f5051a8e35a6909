package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// deadAddress returns an address of this machine on which nothing listens.
func deadAddress(t *testing.T) string {
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(freePort(t)))
}

// serveAt runs a server on an address of this machine until the test ends.
func serveAt(t *testing.T, address, body string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	must(t, "listening", err)
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })}}
	server.Start()
	t.Cleanup(server.Close)
}

func TestE2AnAddressThatRefusedRests(t *testing.T) {
	t.Parallel()
	startContainer(t, spec{})
	startContainer(t, spec{labels: map[string]string{"rgate.port": "9"}}) // refuses connections
	alive, late, later := serve(t, statusInPath), deadAddress(t), deadAddress(t)
	here := strings.Split(bridgeAddress(t), ".")
	far := here[0] + "." + here[1] + ".255.250:80" // no container has this address
	g := launch(t, "Caddyfile", strings.NewReplacer("$FAR", far, "$ALIVE", alive, "$LATER", later, "$LATE", late).Replace(`{
	admin localhost:$ADMIN
}
:$PORT {
	handle /alone/* {
		reverse_proxy {
			dynamic docker_labels app_name=$APP
		}
	}
	handle /turns/* {
		reverse_proxy {
			dynamic docker_labels app_name=$APP
			lb_policy round_robin
		}
	}
	handle /old/* {
		rgate {
			name old
			legacy ignored_failed_dials
			route /old web
			backend web {
				match_labels app_name=$APP
				retries 0
			}
		}
	}
	rgate {
		route /none none
		route /spent spent
		route /turn turn
		route /least least
		route /ring ring
		route /fast fast
		route /first first
		route /far far
		route /late late
		backend none {
			match_labels app_name=$APP
			retries 0
		}
		backend spent {
			match_labels app_name=$APP
			retry_budget {
				ratio 0
				min_per_second 0
			}
		}
		backend turn {
			match_labels app_name=$APP
			retries 0
			lb_policy round_robin
		}
		backend least {
			match_labels app_name=$APP
			retries 0
			lb_policy least_conn
		}
		backend ring {
			match_labels app_name=$APP
			retries 0
			lb_policy ring_hash {http.request.header.X-User}
		}
		backend fast {
			match_labels app_name=$APP
			retries 0
			lb_policy least_latency
		}
		backend first {
			dial $LATER $ALIVE
			retries 0
			lb_policy first
		}
		backend far {
			dial $FAR $ALIVE
			retries 0
			timeouts {
				dial 100ms
			}
		}
		backend late {
			dial $LATE $LATER
		}
	}
}
`), nil, "run", "--config", "$FILE")
	g.await(t, "none", 2)
	failures := func(path string) (n int) {
		for i := range 60 {
			method, body := http.MethodGet, ""
			if i%2 > 0 {
				method, body = http.MethodPost, "body"
			}
			if got := g.ask(t, method, path+"/200", body, "X-User", fmt.Sprint(i)); got.status != 200 {
				n++
			}
		}
		return n
	}
	for _, path := range []string{"/none", "/spent", "/turn", "/least", "/ring", "/fast", "/first", "/far", "/alone", "/turns"} {
		if n := failures(path); n == 0 && path == "/first" || n > 4 { // the first request, and one probe per rest
			t.Errorf("%s: %d of 60 requests failed", path, n)
		}
	}
	if n := failures("/old"); n < 10 {
		t.Errorf("with the legacy option, %d of 60 requests failed", n)
	}

	// If all upstreams rest, all can be selected.
	for range 3 {
		wantStatus(t, "two dead addresses", g.get(t, "/late"), 503)
	}
	serveAt(t, late, "late")
	for range 20 {
		if got := g.get(t, "/late"); got.body != "late" {
			t.Fatalf("the other address rests: got %d %q", got.status, got.body)
		}
	}
	// An address that accepts connections again gets requests after its rest.
	serveAt(t, later, "later")
	testkit.Eventually(t, "the rest ends", func() bool { return g.get(t, "/late").body == "later" })
	testkit.Eventually(t, "the rest of another backend ends", func() bool { return g.get(t, "/first/200").body == "later" })
}
