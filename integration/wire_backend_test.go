package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// wireProbe is the target of the request that follows those of an entry. Its
// response is wireProbeBody.
const (
	wireProbe     = "/open/probe"
	wireProbeBody = "the response to the probe"
)

// wireBackend is the backend of all entries. The gateway dials it by the address
// of its client, so that every entry has connections of its own.
type wireBackend struct {
	port int

	mu   sync.Mutex
	runs map[string]*wireRun // by address; guarded by mu
}

// wireRun is an entry that runs over one of its protocols.
type wireRun struct {
	*wireEntry
	protocol string
	ip       string // of the client, and of the backend

	mu       sync.Mutex
	received []wireReceived // by the backend; guarded by mu
}

// wireReceived is a request as the backend has read it.
type wireReceived struct {
	line, header, body string
}

func startWireBackend(t *testing.T) *wireBackend {
	t.Helper()
	listener, err := net.Listen("tcp4", ":0")
	must(t, "listening", err)
	b := &wireBackend{port: listener.Addr().(*net.TCPAddr).Port, runs: make(map[string]*wireRun)}
	var serving sync.WaitGroup
	var conns sync.Map
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Store(conn, nil)
			serving.Go(func() {
				defer conns.Delete(conn)
				defer conn.Close()
				b.serve(t, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		conns.Range(func(conn, _ any) bool { return conn.(net.Conn).Close() == nil || true })
		serving.Wait()
	})
	return b
}

func (b *wireBackend) add(run *wireRun) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs[run.ip] = run
}

func (b *wireBackend) serve(t *testing.T, conn net.Conn) {
	ip := conn.LocalAddr().(*net.TCPAddr).IP.String()
	b.mu.Lock()
	run := b.runs[ip]
	b.mu.Unlock()
	if run == nil {
		t.Errorf("the gateway dialed %s, where no entry has its backend", ip)
		return
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	for run.respond(conn, reader) {
	}
}

// respond reads a request and sends the entry's response. It reports whether the
// connection is kept.
func (run *wireRun) respond(conn net.Conn, reader *bufio.Reader) bool {
	header, err := peekHeader(reader)
	if err != nil {
		if header != "" {
			run.receive(wireReceived{line: fmt.Sprintf("no request: %q", header)})
		}
		return false
	}
	line, _, _ := strings.Cut(header, " HTTP/1.1\r\n")
	request, err := http.ReadRequest(reader)
	if err != nil {
		run.receive(wireReceived{line: fmt.Sprintf("no request: %q", header)})
		return false
	}
	if request.RequestURI == wireProbe {
		_, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(wireProbeBody), wireProbeBody)
		return err == nil
	}
	received := run.receive(wireReceived{line: line, header: header})
	readBody := func() bool {
		if request.Header.Get("Expect") == "100-continue" {
			if _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return false
			}
		}
		body, err := io.ReadAll(request.Body)
		run.mu.Lock()
		defer run.mu.Unlock()
		run.received[received].body = string(body)
		for name, values := range request.Trailer {
			run.received[received].header += name + ": " + strings.Join(values, ", ") + "\r\n"
		}
		return err == nil
	}
	if !run.backend.beforeBody && !readBody() {
		return false
	}
	response := run.backend.bytes
	if header, body, ok := strings.Cut(response, "\r\n\r\n"); ok && request.Method == http.MethodHead && body == "ok" {
		response = header + "\r\n\r\n"
	}
	if _, err := io.WriteString(conn, response); err != nil {
		return false
	}
	if run.backend.resets {
		_ = conn.(*net.TCPConn).SetLinger(0)
		return false
	}
	if run.backend.close {
		if run.backend.beforeBody {
			// What a client has under way must not become a reset that eats the response.
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, reader)
		}
		return false
	}
	return !run.backend.beforeBody || readBody()
}

// receive notes a request and returns its index.
func (run *wireRun) receive(request wireReceived) int {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.received = append(run.received, request)
	return len(run.received) - 1
}

// peekHeader returns the header of a request, up to its empty line, without
// reading it. If there is none, it returns what there is.
func peekHeader(reader *bufio.Reader) (string, error) {
	for n := 1; ; n++ {
		_, err := reader.Peek(n)
		data, _ := reader.Peek(reader.Buffered())
		if end := bytes.Index(data, []byte("\r\n\r\n")); end >= 0 {
			return string(data[:end+4]), nil
		}
		if err != nil {
			return string(data), err
		}
		n = len(data)
	}
}
