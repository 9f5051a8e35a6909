package access

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// headerEditor has the last word on the header of a response: it is called once all
// handlers further on have had theirs, the backend included. It may be called again, as
// after early hints, and must then come to the same. What it puts into the header must
// be the header's own, for Caddy edits values in place: it has cells for that.
type headerEditor interface {
	editHeader(header http.Header, about string, values *cells)
}

// cells are for the values of header fields, one for each field. They are made by the
// dozen, and each is used once.
type cells []string

// of is the values of a field that has one.
func (c *cells) of(value string) []string {
	if len(*c) == 0 {
		*c = make([]string, 16)
	}
	values := (*c)[:1:1]
	*c = (*c)[1:]
	values[0] = value
	return values
}

// editing returns a response writer whose header the editor edits just before it is
// sent. What it shall know about the request is passed on. Once the next handler has
// returned, end must be called.
func editing(w http.ResponseWriter, editor headerEditor, about string) *editingWriter {
	ew := editingWriters.Get().(*editingWriter)
	ew.ResponseWriter, ew.editor, ew.about = w, editor, about
	return ew
}

// end edits the header for whoever then answers, if nothing was sent. The writer must
// not be used any more. After a panic, end is not called: a goroutine may outlive it.
func (w *editingWriter) end() {
	w.edit()
	if !w.hijacked { // else whoever has the connection may hold the writer
		w.ResponseWriter, w.editor, w.about, w.sent = nil, nil, "", false
		editingWriters.Put(w)
	}
}

var editingWriters = sync.Pool{New: func() any { return new(editingWriter) }}

// editingWriter edits the header before it is sent and passes everything on.
type editingWriter struct {
	caddyhttp.ResponseWriterWrapper
	editor   headerEditor
	about    string
	cells    cells
	sent     bool // the header, as far as can be known
	hijacked bool
}

// edit edits the header, if it was not sent.
func (w *editingWriter) edit() {
	if !w.sent {
		w.editor.editHeader(w.ResponseWriter.Header(), w.about, &w.cells)
		w.sent = true
	}
}

func (w *editingWriter) WriteHeader(status int) {
	if !w.sent && status != http.StatusContinue { // which has no fields of its own
		w.edit()
		w.sent = status >= 200 || status == http.StatusSwitchingProtocols // else another one follows
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *editingWriter) Write(p []byte) (int, error) {
	w.edit()
	return w.ResponseWriter.Write(p)
}

func (w *editingWriter) ReadFrom(r io.Reader) (int64, error) {
	w.edit()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends what is buffered, which may be nothing but the header.
func (w *editingWriter) FlushError() error {
	before := w.sent
	w.edit()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.sent = before || err == nil
	return err
}

func (w *editingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.sent, w.hijacked = true, true
	}
	return conn, buf, err
}

// Interface guards
var (
	_ http.Hijacker = (*editingWriter)(nil)
	_ io.ReaderFrom = (*editingWriter)(nil)
	_ http.Pusher   = (*editingWriter)(nil)
)
