package access

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

// editingLoad provisions a policy as a configuration would.
func editingLoad[T any, P interface {
	*T
	caddy.Module
}](t testing.TB, config string) P {
	t.Helper()
	p, err := editingTryLoad[T, P](t, config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func editingTryLoad[T any, P interface {
	*T
	caddy.Module
}](t testing.TB, config string) (P, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	mod, err := ctx.LoadModuleByID(string(P(new(T)).CaddyModule().ID), json.RawMessage(config))
	if err != nil {
		return nil, err
	}
	return mod.(P), nil
}

// editingParse reads a policy's directive and writes it as JSON.
func editingParse[T any](text string) (string, error) {
	d := caddyfile.NewTestDispenser(text)
	d.Next()
	p := new(T)
	if err := policy.Unmarshal(d, p); err != nil {
		return "", err
	}
	written, err := json.Marshal(p)
	return string(written), err
}

// editingParses holds what directives mean, or the end of their error before its
// place, against what they should.
func editingParses[T any](t *testing.T, table []struct{ text, want string }) {
	t.Helper()
	for _, tc := range table {
		got, err := editingParse[T](tc.text)
		if err != nil {
			got, _, _ = strings.Cut(err.Error(), ", at Testfile:")
		}
		if got != tc.want {
			t.Errorf("%s\ngot  %s\nwant %s", tc.text, got, tc.want)
		}
	}
}

// editingRequest makes a request as a server of Caddy's hands it to its handlers,
// with header fields given as names and values in turn.
func editingRequest(r *http.Request, server *caddyhttp.Server, fields ...string) *http.Request {
	for i := 0; i+1 < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, server)
}

// stamp is an editor that changes the header.
type stamp struct{}

func (stamp) editHeader(header http.Header, about string, _ *cells) {
	header.Del("X-Backend")
	header["X-Stamp"] = []string{about}
}

// However an answer is sent, its header is edited before that.
func TestHeaderIsEditedBeforeItIsSent(t *testing.T) {
	for what, answer := range map[string]func(w http.ResponseWriter){
		"header":        func(w http.ResponseWriter) { w.WriteHeader(204) },
		"header, twice": func(w http.ResponseWriter) { w.WriteHeader(200); w.Header().Set("X-Backend", "late") },
		"body":          func(w http.ResponseWriter) { _, _ = io.WriteString(w, "body") },
		"header, body":  func(w http.ResponseWriter) { w.WriteHeader(200); _, _ = io.WriteString(w, "body") },
		"copied body": func(w http.ResponseWriter) {
			_, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("body"))
		},
		"flush": func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"flush in the end": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "body")
			_ = http.NewResponseController(w).Flush()
		},
		"nothing": func(http.ResponseWriter) {},
		"hints first": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-Backend", "1")
			w.WriteHeader(200)
		},
		"100 first": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusContinue)
			if got := w.Header().Get("X-Stamp"); got != "" {
				t.Errorf("100 has a stamp: %q", got)
			}
			w.WriteHeader(200)
		},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ew := editing(w, stamp{}, "edited")
			ew.Header().Set("X-Backend", "1")
			answer(ew)
			ew.end()
		}))
		response, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		server.Close()
		if got := response.Header.Values("X-Stamp"); len(got) != 1 || got[0] != "edited" {
			t.Errorf("%s: the stamp is %q", what, got)
		}
		if got := response.Header.Get("X-Backend"); got != "" {
			t.Errorf("%s: what was to be removed is %q", what, got)
		}
	}
}

// Who answers in the place of a handler that failed answers with the edited header.
func TestHeaderOfErrorsIsEdited(t *testing.T) {
	w := httptest.NewRecorder()
	ew := editing(w, stamp{}, "error")
	ew.end()
	w.WriteHeader(http.StatusServiceUnavailable)
	if got := w.Result().Header.Get("X-Stamp"); got != "error" {
		t.Errorf("the header is %v", w.Result().Header)
	}
}

// A flush that the writer below does not support has sent nothing: what is set
// afterwards must not get out unedited.
func TestFailedFlushSendsNothing(t *testing.T) {
	w := &benchWriter{make(http.Header)}
	ew := editing(w, stamp{}, "again")
	if err := http.NewResponseController(ew).Flush(); !errors.Is(err, http.ErrNotSupported) {
		t.Fatalf("flushing: %v", err)
	}
	ew.Header().Set("X-Backend", "1")
	ew.WriteHeader(200)
	if got := w.header.Get("X-Backend"); got != "" {
		t.Errorf("what was to be removed is %q", got)
	}
	ew.end()
}

// A hijacked writer is not given to another request.
func TestHijackedWriterIsNotReused(t *testing.T) {
	hijacked := make(chan *editingWriter, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ew := editing(w, stamp{}, "hijacked")
		conn, buf, err := http.NewResponseController(ew).Hijack()
		if err == nil {
			_, _ = buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_ = buf.Flush()
			_ = conn.Close()
		}
		ew.end()
		hijacked <- ew
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("got %q, %v", line, err)
	}
	if ew := <-hijacked; ew.ResponseWriter == nil || !ew.hijacked {
		t.Error("the writer was given back")
	}
}

// Values do not share memory, also with those of earlier requests: Caddy edits them in
// place, and responses may be on their way for long.
func TestCellsAreUsedOnce(t *testing.T) {
	var values cells
	var all [][]string
	for i := range 100 {
		all = append(all, values.of(strconv.Itoa(i)))
	}
	for i, one := range all {
		if len(one) != 1 || cap(one) != 1 || one[0] != strconv.Itoa(i) {
			t.Fatalf("%d: got %q with room for %d", i, one, cap(one))
		}
		one[0] = "edited"
	}
}
