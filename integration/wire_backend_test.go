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

// wireProbe is the target of a request sent after the requests of an entry. Its response
// body is wireProbeBody.
const (
	wireProbe     = "/open/probe"
	wireProbeBody = "the response to the probe"
)

// wireBackend is the backend of all entries. Each entry has its own client address, which
// is also the address of its backend.
type wireBackend struct {
	port int

	mu   sync.Mutex
	runs map[string]*wireRun // by client address. Guarded by mu.
}

// wireRun is a run of an entry over one protocol.
type wireRun struct {
	*wireEntry
	protocol string
	ip       string // address of the client and of the backend

	mu       sync.Mutex
	received []wireReceived // requests at the backend. Guarded by mu.
}

// wireReceived is a request that the backend has received.
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
// connection remains open.
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
			// Unread request bytes would cause a RST, which discards the response.
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, reader)
		}
		return false
	}
	return !run.backend.beforeBody || readBody()
}

// receive records a request and returns its index.
func (run *wireRun) receive(request wireReceived) int {
	run.mu.Lock()
	defer run.mu.Unlock()
	run.received = append(run.received, request)
	return len(run.received) - 1
}

// peekHeader returns a request header, up to the empty line, without consuming it. On
// error, it returns the buffered bytes.
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
