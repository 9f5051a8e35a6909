package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
)

// plain is the response body of /plain.
const plain = "This is a small response of exactly 61 bytes from a backend.\n"

// service handles all requests.
type service struct {
	name      string
	container string
	healthy   atomic.Bool
	seen      counter
}

func newService(name string, healthy bool) *service {
	container, err := os.Hostname()
	if err != nil {
		container = "unknown"
	}
	s := &service{name: name, container: container}
	s.healthy.Store(healthy)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action := path.Base(r.URL.Path)
	if action == "plain" {
		// Used in benchmarks: not counted.
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, plain)
		return
	}
	w.Header().Set("X-Service", s.name)
	w.Header().Set("X-Container", s.container)
	switch action {
	case "count":
		writeJSON(w, http.StatusOK, s.seen.report(s))
		return
	case "healthz":
		s.serveHealth(w, r)
		return
	}

	s.seen.begin(r.Method)
	defer s.seen.end()
	if misbehave(w, r) {
		return
	}
	switch {
	case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
		serveGRPC(w, r)
	case action == "sse":
		s.serveEvents(w, r)
	case action == "ws":
		s.serveWebSocket(w, r)
	case action == "upload":
		s.serveUpload(w, r)
	case action == "trailers":
		s.serveTrailers(w, r)
	default:
		s.serveEcho(w, r)
	}
}

// echo is the JSON description of a request.
type echo struct {
	Service   string `json:"service"`
	Container string `json:"container"`

	// The local address of the connection.
	Local  string `json:"local"`
	Remote string `json:"remote"`
	TLS    bool   `json:"tls"`

	Protocol string `json:"protocol"`
	Method   string `json:"method"`
	Host     string `json:"host"`

	// The request target as received, without decoding.
	RequestURI string `json:"request_uri"`

	// The decoded path and the raw query.
	Path  string `json:"path"`
	Query string `json:"query"`

	Headers  http.Header `json:"headers"`
	Trailers http.Header `json:"trailers,omitempty"`

	// The size and the hexadecimal SHA-256 hash of the body.
	BodyBytes  int64  `json:"body_bytes"`
	BodySHA256 string `json:"body_sha256"`

	// The error of reading the body. Empty: none.
	BodyError string `json:"body_error,omitempty"`
}

// newEcho returns the echo of a request. It reads the whole body unless the query
// contains `read=0`.
func (s *service) newEcho(r *http.Request) echo {
	e := echo{
		Service:    s.name,
		Container:  s.container,
		Remote:     r.RemoteAddr,
		TLS:        r.TLS != nil,
		Protocol:   r.Proto,
		Method:     r.Method,
		Host:       r.Host,
		RequestURI: r.RequestURI,
		Path:       r.URL.Path,
		Query:      r.URL.RawQuery,
		Headers:    r.Header,
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		e.Local = local.String()
	}
	sum := sha256.New()
	if r.URL.Query().Get("read") != "0" {
		var err error
		if e.BodyBytes, err = io.Copy(sum, r.Body); err != nil {
			e.BodyError = err.Error()
		}
	}
	e.BodySHA256 = hex.EncodeToString(sum.Sum(nil))
	e.Trailers = r.Trailer
	return e
}

func (s *service) serveEcho(w http.ResponseWriter, r *http.Request) {
	status := statusOf(r)
	e := s.newEcho(r)
	if n, ok := number(r, "bytes"); ok {
		writeBytes(w, status, n)
		return
	}
	writeJSON(w, status, e)
}

func (s *service) serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		s.healthy.Store(r.URL.Query().Get("up") != "0")
	}
	up := s.healthy.Load()
	status := http.StatusOK
	// A POST request, which sets the health, always succeeds.
	if !up && r.Method != http.MethodPost {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]any{"service": s.name, "container": s.container, "up": up})
}

// writeJSON writes v as a JSON response.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// counter counts requests.
type counter struct {
	mu       sync.Mutex
	byMethod map[string]int // Guarded by mu.
	total    int            // Guarded by mu.
	inFlight int            // Guarded by mu.
	atOnce   int            // Guarded by mu.
}

// counts is the response of /count.
type counts struct {
	Service     string         `json:"service"`
	Container   string         `json:"container"`
	Total       int            `json:"total"`
	ByMethod    map[string]int `json:"by_method"`
	InFlight    int            `json:"in_flight"`
	MaxInFlight int            `json:"max_in_flight"`
}

func (c *counter) begin(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byMethod == nil {
		c.byMethod = make(map[string]int)
	}
	c.byMethod[method]++
	c.total++
	c.inFlight++
	c.atOnce = max(c.atOnce, c.inFlight)
}

func (c *counter) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
}

func (c *counter) report(s *service) counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	result := counts{
		Service:     s.name,
		Container:   s.container,
		Total:       c.total,
		ByMethod:    make(map[string]int, len(c.byMethod)),
		InFlight:    c.inFlight,
		MaxInFlight: c.atOnce,
	}
	for method, n := range c.byMethod {
		result.ByMethod[method] = n
	}
	return result
}
