package httpx

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// HeaderEditor edits a response header after the backend and all later handlers have
// set their fields. EditHeader can be called several times per response, for example
// after early hints, and must be idempotent. Values that it adds must come from values,
// because Caddy edits values in place.
type HeaderEditor interface {
	EditHeader(header http.Header, arg string, values *FieldValues)
}

// FieldValues allocates values of header fields in batches. Each value is used once.
type FieldValues []string

// Of returns a list that contains a single value.
func (f *FieldValues) Of(value string) []string {
	if len(*f) == 0 {
		*f = make([]string, 16)
	}
	values := (*f)[:1:1]
	*f = (*f)[1:]
	values[0] = value
	return values
}

// HeaderWriter is a response writer that edits the header before it is sent.
type HeaderWriter struct {
	caddyhttp.ResponseWriterWrapper
	editor   HeaderEditor
	arg      string
	values   FieldValues
	sent     bool // the header was sent, as far as can be known
	hijacked bool
}

var headerWriters = sync.Pool{New: func() any { return new(HeaderWriter) }}

// NewHeaderWriter returns a writer that calls editor with arg before the header is
// sent. The caller must call Close after the next handler has returned.
func NewHeaderWriter(w http.ResponseWriter, editor HeaderEditor, arg string) *HeaderWriter {
	hw := headerWriters.Get().(*HeaderWriter)
	hw.ResponseWriter, hw.editor, hw.arg = w, editor, arg
	return hw
}

// Close edits the header for the error response that follows if no response was sent.
// The writer must not be used afterwards. Do not call Close after a panic: a goroutine
// may still use the writer.
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
	if !w.sent && status != http.StatusContinue { // 100 has no header fields
		w.edit()
		w.sent = status >= 200 || status == http.StatusSwitchingProtocols // a final status follows other 1xx statuses
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

// FlushError sends buffered data, or only the header.
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
