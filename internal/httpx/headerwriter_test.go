package httpx

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/rgate/rgate/internal/testkit"
)

// stamp is a HeaderEditor that sets fields.
type stamp struct{}

func (stamp) EditHeader(header http.Header, arg string, _ *FieldValues) {
	header.Del("X-Backend")
	header["X-Stamp"] = []string{arg}
}

// The header is edited before any part of the response is sent.
func TestHeaderIsEditedBeforeItIsSent(t *testing.T) {
	for what, respond := range map[string]func(w http.ResponseWriter){
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
			hw := NewHeaderWriter(w, stamp{}, "edited")
			hw.Header().Set("X-Backend", "1")
			respond(hw)
			hw.Close()
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
			t.Errorf("%s: the removed field is %q", what, got)
		}
	}
}

// An error response after a failed handler has the edited header.
func TestHeaderOfErrorsIsEdited(t *testing.T) {
	w := httptest.NewRecorder()
	hw := NewHeaderWriter(w, stamp{}, "error")
	hw.Close()
	w.WriteHeader(http.StatusServiceUnavailable)
	if got := w.Result().Header.Get("X-Stamp"); got != "error" {
		t.Errorf("the header is %v", w.Result().Header)
	}
}

// A flush that the underlying writer does not support sends nothing. Fields set
// afterwards are edited, too.
func TestFailedFlushSendsNothing(t *testing.T) {
	w := make(testkit.DiscardWriter)
	hw := NewHeaderWriter(w, stamp{}, "again")
	if err := http.NewResponseController(hw).Flush(); !errors.Is(err, http.ErrNotSupported) {
		t.Fatalf("flushing: %v", err)
	}
	hw.Header().Set("X-Backend", "1")
	hw.WriteHeader(200)
	if got := w.Header().Get("X-Backend"); got != "" {
		t.Errorf("the removed field is %q", got)
	}
	hw.Close()
}

// A hijacked writer is not reused for another request.
func TestHijackedWriterIsNotReused(t *testing.T) {
	hijacked := make(chan *HeaderWriter, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hw := NewHeaderWriter(w, stamp{}, "hijacked")
		conn, buf, err := http.NewResponseController(hw).Hijack()
		if err == nil {
			_, _ = buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_ = buf.Flush()
			_ = conn.Close()
		}
		hw.Close()
		hijacked <- hw
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
	if hw := <-hijacked; hw.ResponseWriter == nil || !hw.hijacked {
		t.Error("the writer was returned to the pool")
	}
}

// Values share no memory, even with earlier requests, because Caddy edits them in
// place.
func TestFieldValuesAreUsedOnce(t *testing.T) {
	var values FieldValues
	var all [][]string
	for i := range 100 {
		all = append(all, values.Of(strconv.Itoa(i)))
	}
	for i, one := range all {
		if len(one) != 1 || cap(one) != 1 || one[0] != strconv.Itoa(i) {
			t.Fatalf("%d: got %q with room for %d", i, one, cap(one))
		}
		one[0] = "edited"
	}
}
