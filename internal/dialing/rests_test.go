package dialing

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// firstSelector selects the first upstream of the pool, or none for an address that it
// skips.
type firstSelector struct{ skips []string }

func (s firstSelector) Select(pool reverseproxy.UpstreamPool, _ *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	for _, upstream := range pool {
		if !slices.Contains(s.skips, upstream.Dial) {
			return upstream
		}
	}
	return nil
}

var errRefused = errors.New("connection refused")

func TestFailedDialsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all Rests
		pool := reverseproxy.UpstreamPool{{Dial: "a:1"}, {Dial: "b:1"}, {Dial: "{x}:1"}}
		of := Instance{ID: "1"}
		instance := func(string) Instance { return of }
		want := func(when, dial string, skips ...string) {
			t.Helper()
			got := ""
			if u := all.Select(firstSelector{skips}, pool, nil, nil, instance); u != nil {
				got = u.Dial
			}
			if got != dial {
				t.Errorf("%s: got %q, want %q", when, got, dial)
			}
		}
		all.Failed("{x}:1", of, errRefused)
		if !all.Empty() {
			t.Error("an address with a placeholder rests")
		}
		for range 5 { // concurrent failures count as one
			all.Failed("a:1", of, errRefused)
		}
		want("after a failure", "b:1")
		want("if the others are unavailable", "a:1", "b:1", "{x}:1")
		if reason := all.Reason("a:1", instance); !strings.Contains(reason, "(1 in a row): connection refused") {
			t.Errorf("the reason is %q", reason)
		}
		for rest := firstRest; rest <= longestRest; rest *= 2 {
			time.Sleep(rest - time.Millisecond)
			want("before the end of the rest", "b:1")
			time.Sleep(time.Millisecond)
			want("the probe", "a:1")
			want("during the probe", "b:1")
			all.Failed("a:1", of, errRefused)
		}
		time.Sleep(longestRest)
		want("the longest rest", "a:1")
		time.Sleep(longestRest)
		want("after a probe without a result", "a:1")
		all.Succeeded("a:1")
		if want("after a success", "a:1"); !all.Empty() {
			t.Error("an address rests after a success")
		}

		all.Failed("a:1", of, errRefused)
		of = Instance{ID: "2"}
		want("another container at the address", "a:1")
		for i := range 1000 { // addresses that are removed later
			all.Failed(fmt.Sprintf("c:%d", i), of, errRefused)
		}
		time.Sleep(firstRest + forgetAfter + longestRest + time.Second)
		if want("the sweep", "a:1"); !all.Empty() {
			t.Errorf("%d addresses are kept", all.count.Load())
		}
	})
}

func TestConnectionsToThisMachine(t *testing.T) {
	server := httptest.NewServer(nil)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := CheckLocal(conn, false); err != nil {
		t.Errorf("another listener: %v", err)
	}
	if err := CheckLocal(conn, true); err == nil || !strings.Contains(err.Error(), "the label rgate.address leads to 127.0.0.1") {
		t.Errorf("a loopback address in a label: %v", err)
	}
	for address, barred := range map[string]bool{
		"169.254.169.254": true, "224.0.0.1": true, "0.0.0.0": true, "::1": true, "::ffff:127.0.0.1": true, "fe80::1": true,
		"10.0.0.2": false, "2001:db8::1": false,
	} {
		if err := CheckLocal(fakeConn{remote: address}, true); (err != nil) != barred {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// fakeConn is a connection to an address.
type fakeConn struct {
	net.Conn
	remote string
}

func (c fakeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.remote), Port: 80} }
func (c fakeConn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 5} }
