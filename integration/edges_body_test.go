package integration

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// edgesBackend starts a backend that can respond or reset before reading the body. inner
// counts requests for /inner, which occur only inside bodies.
func edgesBackend(t testing.TB) (address string, inner *atomic.Int64) {
	inner = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		controller := http.NewResponseController(w)
		switch {
		case r.URL.Path == "/inner":
			inner.Add(1)
		case strings.Contains(r.URL.Path, "/early"):
			conn, buffered, _ := controller.Hijack()
			_, _ = buffered.WriteString("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
			_ = buffered.Flush()
			conn.Close()
		case strings.Contains(r.URL.Path, "/reset"):
			conn, _, _ := controller.Hijack()
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		default:
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "read %d", n)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String(), inner
}

// edgesSite returns a Caddyfile site that rejects requests in many ways, with and without
// a gateway.
func edgesSite(t testing.TB, backend string) string {
	return strings.NewReplacer("$BACKEND", backend, "$DOWN", "127.0.0.1:1", "$HASH", hashOfKey("secret")).Replace(`
	route {
		rgate_api_key /key* {
			keys alice $HASH
		}
		basic_auth /basic* {
			bob ` + passwordHash(t, "password") + `
		}
		error /error* 403
		respond /respond* 404
		reverse_proxy /plain* $BACKEND
		rgate {
			backend b {
				dial $BACKEND
			}
			backend down {
				dial $DOWN
			}
			route /open b
			route /max b {
				security {
					max_body 1KB
				}
			}
			route /own_key b {
				api_key {
					keys alice $HASH
				}
			}
			route /ip b {
				ip_filter {
					deny 127.0.0.0/8
				}
			}
			route /get b {
				methods GET
			}
			route /rate b {
				rate_limit {
					requests 1
					window 1h
					key all
				}
			}
			route /down down
		}
	}`)
}

// edgesRefusals maps paths of edgesSite to the status they are rejected with, before the
// body is read.
var edgesRefusals = map[string]int{
	"/key": 401, "/own_key": 401, "/basic": 401, "/error": 403, "/ip": 403, "/none": 404, "/respond": 404, "/get": 405, "/rate": 429, "/down": 503,
}

// spendRate uses up the rate limit of edgesSite.
func spendRate(t testing.TB, client *http.Client, base string) {
	t.Helper()
	response, err := client.Get(base + "/rate")
	must(t, "using up the rate limit", err)
	response.Body.Close()
}

// bodyOfRequests returns a body that consists of requests.
func bodyOfRequests(size int) []byte {
	unit := append(bytes.Repeat([]byte("A"), 4000), " /x HTTP/1.1\r\nHost: y\r\n\r\nGET /inner HTTP/1.1\r\nHost: inner\r\n\r\n"...)
	return bytes.Repeat(unit, size/len(unit)+1)[:size]
}

// dialEdge connects to a gateway and sets a deadline on the connection.
func dialEdge(t testing.TB, address string, withTLS bool) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, "connecting", err)
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if !withTLS {
		return conn
	}
	return tls.Client(conn, clientTLS("http/1.1"))
}

// post returns a POST request with Content-Length or with a single chunk.
func post(path string, chunked bool, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: localhost\r\n", path)
	if chunked {
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	} else {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	return b.Bytes()
}

// responsesUntilEnd reads final responses until EOF and returns their statuses. It fails
// if a response is malformed or the connection is reset.
func responsesUntilEnd(conn net.Conn) (statuses []int, err error) {
	reader := bufio.NewReader(conn)
	for {
		if _, err := reader.Peek(1); err == io.EOF {
			return statuses, nil
		} else if err != nil {
			return statuses, err
		}
		response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodPost})
		if err != nil {
			return statuses, err
		}
		if _, err = io.Copy(io.Discard, response.Body); err != nil {
			return statuses, err
		}
		statuses = append(statuses, response.StatusCode)
	}
}

// upload sends a request and returns the statuses of the responses. If small is set, a
// second request follows on the same connection.
func upload(t testing.TB, address string, withTLS bool, request []byte, small bool) ([]int, error) {
	t.Helper()
	conn := dialEdge(t, address, withTLS)
	defer conn.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(request)
		if err == nil && small {
			_, err = io.WriteString(conn, "POST /get HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		}
		sent <- err
	}()
	statuses, err := responsesUntilEnd(conn)
	conn.Close()
	<-sent // a write error also causes a read error
	return statuses, err
}

func TestA1OneUploadIsOneRequest(t *testing.T) {
	t.Parallel()
	backend, inner := edgesBackend(t)
	site := edgesSite(t, backend)
	g := startAllVersions(t, site, "")
	others := map[string]*gateway{
		"with full duplex and error routes": launch(t, "Caddyfile", "{\n\tadmin localhost:$ADMIN\n\tservers {\n\t\tenable_full_duplex\n\t}\n}\nhttp://:$PORT {\n"+
			site+"\n\thandle_errors {\n\t\trespond \"error {err.status_code}\"\n\t}\n}\n", nil, "run", "--config", "$FILE"),
		"without limits on pauses": launch(t, "Caddyfile", "{\n\tadmin localhost:$ADMIN\n\tservers {\n\t\ttimeouts {\n\t\t\tread_body_idle -1s\n\t\t\twrite_idle -1s\n\t\t}\n\t}\n}\nhttp://:$PORT {\n"+
			"\tlog\n"+site+"\n}\n", nil, "run", "--config", "$FILE"),
	}
	type target struct {
		what, address string
		withTLS       bool
	}
	targets := []target{{"plain", g.address(), false}, {"TLS", g.tlsAddress(), true}}
	spendRate(t, g.client, g.url(""))
	spendRate(t, g.tlsClient(t, false), g.tlsURL(""))
	for what, other := range others {
		targets = append(targets, target{what, other.address(), false})
		spendRate(t, other.client, other.url(""))
	}

	paths := map[string]int{"/max": 413, "/open/early": 0, "/open/reset": 0, "/plain/early": 0, "/plain/reset": 0} // 0: any error
	for path, status := range edgesRefusals {
		paths[path] = status
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, to := range targets {
		for path, status := range paths {
			for _, size := range []int{2000, 1 << 20} {
				for _, chunked := range []bool{false, true} {
					wg.Go(func() {
						slots <- struct{}{}
						defer func() { <-slots }()
						small := size < 256<<10
						statuses, err := upload(t, to.address, to.withTLS, post(path, chunked, bodyOfRequests(size)), small)
						want := []int{status}
						if small {
							want = append(want, 405)
						}
						if status == 0 && len(statuses) > 0 && statuses[0] >= 400 {
							want[0] = statuses[0]
						}
						// The second request is not served if the backend closes the
						// connection during the upload.
						if err != nil || !slices.Equal(statuses, want) && !(status == 0 && len(statuses) == 1 && statuses[0] >= 400) {
							t.Errorf("%s: POST %s with %d bytes (chunked: %t): got %d, %v, want %d", to.what, path, size, chunked, statuses, err, want)
						}
					})
				}
			}
		}
	}
	wg.Wait()

	for _, to := range targets {
		for path, status := range map[string]int{"/open": 400, "/plain": 400, "/max": 400, "/key": 401, "/none": 404, "/respond": 404} {
			for _, chunk := range []string{"5\r\nhelloXX\r\n", "5\r\nhello\r\nzz\r\n", "-1\r\n"} {
				request := "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + "GET /inner HTTP/1.1\r\nHost: inner\r\n\r\n"
				if statuses, err := upload(t, to.address, to.withTLS, []byte(request), false); err != nil || !slices.Equal(statuses, []int{status}) {
					t.Errorf("%s: POST %s with the chunk %q: got %d, %v, want %d", to.what, path, chunk, statuses, err, status)
				}
			}
		}
		keptConnection(t, to.what, to.address, to.withTLS)
		writeFirst(t, to.what, to.address, to.withTLS)
	}
	if n := inner.Load(); n > 0 {
		t.Errorf("%d requests out of bodies have reached the backend", n)
	}
}

// keptConnection sends many requests that are rejected on one connection.
func keptConnection(t *testing.T, what, address string, withTLS bool) {
	t.Helper()
	body := bodyOfRequests(1 << 10)
	for path, status := range map[string]int{"/key": 401, "/own_key": 401, "/none": 404, "/get": 405, "/rate": 429} {
		conn := dialEdge(t, address, withTLS)
		reader := bufio.NewReader(conn)
		for i := range 1000 {
			_, err := conn.Write(post(path, i%2 == 0, body))
			var response *http.Response
			if err == nil {
				response, err = http.ReadResponse(reader, nil)
			}
			if err == nil {
				_, err = io.Copy(io.Discard, response.Body)
			}
			if err != nil || response.StatusCode != status || response.Close {
				t.Errorf("%s: request %d to %s on one connection: got %v, %v, want %d", what, i+1, path, response, err, status)
				break
			}
		}
		conn.Close()
	}
}

// writeFirst sends a large body before it reads the response.
func writeFirst(t *testing.T, what, address string, withTLS bool) {
	t.Helper()
	for batch := range 10 {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				conn := dialEdge(t, address, withTLS)
				defer conn.Close()
				_, err := conn.Write(post("/key", batch%2 == 0, bodyOfRequests(1_000_000)))
				var response *http.Response
				if err == nil {
					response, err = http.ReadResponse(bufio.NewReader(conn), nil)
				}
				if err != nil || response.StatusCode != 401 {
					t.Errorf("%s: a client that sends 1 MB before it reads: got %v, %v", what, response, err)
				}
			})
		}
		wg.Wait()
	}
}

func TestA2HeldBackBodyIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	backend, _ := edgesBackend(t)
	g := startAllVersions(t, edgesSite(t, backend), "")
	withErrors := launch(t, "Caddyfile", "{\n\tadmin localhost:$ADMIN\n}\nhttp://:$PORT {\n"+edgesSite(t, backend)+
		"\n\thandle_errors {\n\t\trespond \"error {err.status_code}\"\n\t}\n}\n", nil, "run", "--config", "$FILE")
	spendRate(t, g.client, g.url(""))
	spendRate(t, g.tlsClient(t, false), g.tlsURL(""))
	spendRate(t, withErrors.client, withErrors.url(""))

	paths := map[string]int{"/max": 413}
	for path, status := range edgesRefusals {
		paths[path] = status
	}
	for address, withTLS := range map[string]bool{g.address(): false, g.tlsAddress(): true, withErrors.address(): false} {
		for path, status := range paths {
			for _, version := range []string{"1.1", "1.0"} {
				conn := dialEdge(t, address, withTLS)
				began := time.Now()
				fmt.Fprintf(conn, "POST %s HTTP/%s\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n", path, version)
				statuses, err := responsesUntilEnd(conn)
				// A longer duration means that the idle timeout of one minute closed the
				// connection.
				if err != nil || !slices.Equal(statuses, []int{status}) || time.Since(began) > patience/2 {
					t.Errorf("POST %s by HTTP/%s, held back, %s: got %d, %v after %s, want %d at once", path, version, address, statuses, err, time.Since(began), status)
				}
				conn.Close()
			}
		}

		// A backend that requests the body receives it.
		for _, path := range []string{"/open", "/plain"} {
			conn := dialEdge(t, address, withTLS)
			reader := bufio.NewReader(conn)
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", path)
			response, err := http.ReadResponse(reader, nil)
			if err != nil || response.StatusCode != 100 {
				t.Errorf("POST %s, forwarded: got %v, %v, want 100", path, response, err)
				continue
			}
			_, _ = io.WriteString(conn, "hello")
			for err == nil && response.StatusCode == 100 { // skips the backend's own 100
				response, err = http.ReadResponse(reader, nil)
			}
			if err != nil {
				t.Errorf("POST %s, forwarded: %v", path, err)
				continue
			}
			if body, _ := io.ReadAll(response.Body); response.StatusCode != 200 || string(body) != "read 5" || response.Close {
				t.Errorf("POST %s, forwarded: got %d and %q", path, response.StatusCode, body)
			}
			conn.Close()
		}

		// HTTP/1.0 has no 100 (Continue), so the expectation is ignored (RFC 9110,
		// section 10.1.1).
		conn := dialEdge(t, address, withTLS)
		_, _ = io.WriteString(conn, "POST /open HTTP/1.0\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
		if statuses, err := responsesUntilEnd(conn); err != nil || !slices.Equal(statuses, []int{200}) {
			t.Errorf("HTTP/1.0: got %d, %v", statuses, err)
		}
		conn = dialEdge(t, address, withTLS)
		_, _ = io.WriteString(conn, "POST /open HTTP/1.1\r\nHost: localhost\r\nExpect: something\r\nContent-Length: 5\r\n\r\nhello")
		if statuses, err := responsesUntilEnd(conn); !slices.Equal(statuses, []int{417}) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("another expectation: got %d, %v", statuses, err)
		}
	}
}

func TestA1PlainSourceWarnsOfUploads(t *testing.T) {
	t.Parallel()
	const warning = "read_body_idle"
	source := "reverse_proxy {\n\t\tdynamic docker_labels app=none\n\t}"
	for what, test := range map[string]struct {
		config string
		warned int
	}{
		"plain":                 {":8080 {\n\t" + source + "\n}\n", 1},
		"without the limit":     {"{\n\tservers {\n\t\ttimeouts {\n\t\t\tread_body_idle -1s\n\t\t}\n\t}\n}\n:8080 {\n\t" + source + "\n}\n", 0},
		"behind one of rgate's": {":8080 {\n\trgate_security\n\t" + source + "\n}\n", 0},
		"before one of rgate's": {":8080 {\n\troute {\n\t\t@a path /a\n\t\thandle @a {\n\t\t\t" + source + "\n\t\t}\n\t\trgate_security\n\t}\n}\n", 0},
	} {
		file := filepath.Join(t.TempDir(), "Caddyfile")
		must(t, "writing the configuration", os.WriteFile(file, []byte(test.config), 0o600))
		got := rgate(t, nil, "validate", "--config", file)
		if n := strings.Count(got.stdout+got.stderr, warning); got.code != 0 || n != test.warned {
			t.Errorf("%s: exit %d with %d warnings, want %d:\n%s%s", what, got.code, n, test.warned, got.stdout, got.stderr)
		}
	}
}
