package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// patience is the default timeout of tests.
const patience = testkit.Patience

// newClient returns a client that neither decompresses responses nor follows redirects.
func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// response is a response whose body has been read.
type response struct {
	status          int
	header, trailer http.Header
	length          int64
	body            string
}

// echo holds the fields of the demo backend's response that tests check.
type echo struct {
	Service, Container, Local, Protocol, Method, Host string

	TLS        bool
	RequestURI string `json:"request_uri"`
	Headers    http.Header
	Trailers   http.Header
	BodyBytes  int64  `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256"`
}

func (a response) echo(t testing.TB) (e echo) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("got status %d and %q, want the backend's echo", a.status, a.body)
	}
	must(t, "reading the backend's echo", json.Unmarshal([]byte(a.body), &e))
	return e
}

// do sends a request and reads the response with its body.
func do(client *http.Client, request *http.Request) (response, error) {
	resp, err := client.Do(request)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, resp.Trailer, resp.ContentLength, string(body)}, err
}

// request returns a request to the gateway. headers are alternating names and values.
func (g *gateway) request(t testing.TB, method, target, body string, headers ...string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, g.url(target), reader)
	must(t, "making a request", err)
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	return request
}

// ask sends a request and returns the response. The test fails if there is none.
func (g *gateway) ask(t testing.TB, method, target, body string, headers ...string) response {
	t.Helper()
	got, err := do(g.client, g.request(t, method, target, body, headers...))
	must(t, method+" "+target, err)
	return got
}

func (g *gateway) get(t testing.TB, target string) response {
	t.Helper()
	return g.ask(t, http.MethodGet, target, "")
}

// awaitStatus repeats a GET request until the response has the given status.
func (g *gateway) awaitStatus(t testing.TB, target string, status int) {
	t.Helper()
	last := 0
	defer func() {
		if t.Failed() {
			t.Logf("%s: the last status was %d, want %d", target, last, status)
		}
	}()
	testkit.Eventually(t, fmt.Sprintf("the status of %s is %d", target, status), func() bool {
		last = g.get(t, target).status
		return last == status
	})
}

// raw sends bytes over a new connection and reads until the gateway closes it. The last
// request should contain "Connection: close".
func (g *gateway) raw(t testing.TB, bytes string) string {
	t.Helper()
	conn, err := net.Dial("tcp", g.address())
	must(t, "dialing the gateway", err)
	defer conn.Close()
	must(t, "setting a deadline", conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, bytes)
	must(t, "sending bytes", err)
	got, err := io.ReadAll(conn)
	must(t, "reading bytes", err)
	return string(got)
}

// rawGet sends a GET request with the given bytes as its request target.
func (g *gateway) rawGet(t testing.TB, target string) response {
	t.Helper()
	text := g.raw(t, "GET "+target+" HTTP/1.1\r\nHost: gateway.example\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
	if err != nil {
		t.Fatalf("GET %s: reading the response %q: %v", target, text, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, "reading the body", err)
	return response{status: resp.StatusCode, header: resp.Header, length: resp.ContentLength, body: string(body)}
}

// counts holds the request counts of the demo backend.
type counts struct {
	Total       int
	ByMethod    map[string]int `json:"by_method"`
	InFlight    int            `json:"in_flight"`
	MaxInFlight int            `json:"max_in_flight"`
}

// counts reads the request counts directly from the container.
func (b *box) counts(t testing.TB) (c counts) {
	t.Helper()
	must(t, "asking "+b.name, json.Unmarshal([]byte(b.ask(t, http.MethodGet, "/count")), &c))
	return c
}

// ask sends a request directly to the container, not through the gateway.
func (b *box) ask(t testing.TB, method, target string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+net.JoinHostPort(b.ip, "8080")+target, nil)
	must(t, "making a request", err)
	request.Close = true
	got, err := do(http.DefaultClient, request)
	must(t, "asking "+b.name, err)
	return got.body
}

// traffic is a set of clients that repeat the same request.
type traffic struct {
	cancel  context.CancelFunc
	clients sync.WaitGroup

	mu    sync.Mutex
	tally map[string]int       // number of results by status or error. Guarded by mu.
	first map[string]time.Time // time of each outcome's first result since mark. Guarded by mu.
}

// startTraffic starts clients that send GET requests sequentially, without pauses, until
// stop is called.
func (g *gateway) startTraffic(t testing.TB, clients int, target string) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traffic{cancel: cancel, tally: make(map[string]int), first: make(map[string]time.Time)}
	for range clients {
		client := newClient(t)
		tr.clients.Go(func() {
			for ctx.Err() == nil {
				tr.count(ctx, client, g.url(target))
			}
		})
	}
	t.Cleanup(func() { tr.stop() })
	return tr
}

func (tr *traffic) count(ctx context.Context, client *http.Client, url string) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		panic(err)
	}
	// The request has no context, so that the gateway never sees a client disconnect.
	got, err := do(client, request)
	outcome := strconv.Itoa(got.status)
	if err != nil {
		outcome = err.Error()
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.tally[outcome]++
	if tr.first[outcome].IsZero() {
		tr.first[outcome] = time.Now()
	}
}

// mark resets the times that firstSeen returns.
func (tr *traffic) mark() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	clear(tr.first)
}

// firstSeen waits for an outcome and returns the time of its first result after mark.
func (tr *traffic) firstSeen(t testing.TB, outcome string) (at time.Time) {
	t.Helper()
	testkit.Eventually(t, "a response is "+outcome, func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		at = tr.first[outcome]
		return !at.IsZero()
	})
	return at
}

// seen returns the number of results with this outcome.
func (tr *traffic) seen(outcome string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.tally[outcome]
}

// awaitMore waits for the given number of further results with this outcome.
func (tr *traffic) awaitMore(t testing.TB, outcome string, more int) {
	t.Helper()
	until := tr.seen(outcome) + more
	testkit.Eventually(t, fmt.Sprintf("%d more responses are %s", more, outcome), func() bool { return tr.seen(outcome) >= until })
}

// stop stops the clients and returns the number of results by outcome.
func (tr *traffic) stop() map[string]int {
	tr.cancel()
	tr.clients.Wait()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.tally
}

// only fails the test unless exactly the given outcomes were seen, each at least once.
func only(t testing.TB, tally map[string]int, outcomes ...string) {
	t.Helper()
	for _, outcome := range outcomes {
		if tally[outcome] == 0 {
			t.Errorf("no response was %s: %v", outcome, tally)
		}
	}
	if len(tally) > len(outcomes) {
		t.Errorf("got %v, want nothing but %v", tally, outcomes)
	}
}
