// Package httpx has tools for requests and responses that several packages need.
package httpx

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// HeaderEditor edits the header of a response after all later handlers, the backend
// included, have set theirs. EditHeader can be called several times for a response, for
// example after early hints, and must be idempotent. It must use values for what it adds,
// because Caddy edits values in place.
type HeaderEditor interface {
	EditHeader(header http.Header, arg string, values *FieldValues)
}

// FieldValues allocates the values of header fields in batches. Each is used once.
type FieldValues []string

// Of returns a list of one value.
func (f *FieldValues) Of(value string) []string {
	if len(*f) == 0 {
		*f = make([]string, 16)
	}
	values := (*f)[:1:1]
	*f = (*f)[1:]
	values[0] = value
	return values
}

// HeaderWriter is a response writer whose header is edited before it is sent.
type HeaderWriter struct {
	caddyhttp.ResponseWriterWrapper
	editor   HeaderEditor
	arg      string
	values   FieldValues
	sent     bool // the header, as far as can be known
	hijacked bool
}

var headerWriters = sync.Pool{New: func() any { return new(HeaderWriter) }}

// NewHeaderWriter returns a writer whose header the editor edits before it is sent. The
// editor gets arg. Close must be called when the next handler has returned.
func NewHeaderWriter(w http.ResponseWriter, editor HeaderEditor, arg string) *HeaderWriter {
	hw := headerWriters.Get().(*HeaderWriter)
	hw.ResponseWriter, hw.editor, hw.arg = w, editor, arg
	return hw
}

// Close edits the header if no response was sent, for the error response that follows. The
// writer must not be used afterwards. After a panic, do not call Close: a goroutine can
// still use the writer.
func (w *HeaderWriter) Close() {
	w.edit()
	if !w.hijacked { // the owner of a hijacked connection can keep the writer
		w.ResponseWriter, w.editor, w.arg, w.sent = nil, nil, "", false
		headerWriters.Put(w)
	}
}

// Sent reports whether the header was sent.
func (w *HeaderWriter) Sent() bool { return w.sent }

func (w *HeaderWriter) edit() {
	if !w.sent {
		w.editor.EditHeader(w.ResponseWriter.Header(), w.arg, &w.values)
		w.sent = true
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *HeaderWriter) WriteHeader(status int) {
	if !w.sent && status != http.StatusContinue { // 100 has no fields
		w.edit()
		w.sent = status >= 200 || status == http.StatusSwitchingProtocols // a final status follows others
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *HeaderWriter) Write(p []byte) (int, error) {
	w.edit()
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *HeaderWriter) ReadFrom(r io.Reader) (int64, error) {
	w.edit()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends buffered data, or the header alone.
func (w *HeaderWriter) FlushError() error {
	before := w.sent
	w.edit()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.sent = before || err == nil
	return err
}

// Hijack implements http.Hijacker.
func (w *HeaderWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.sent, w.hijacked = true, true
	}
	return conn, buf, err
}

// Interface guards
var (
	_ http.Hijacker = (*HeaderWriter)(nil)
	_ io.ReaderFrom = (*HeaderWriter)(nil)
	_ http.Pusher   = (*HeaderWriter)(nil)
)
