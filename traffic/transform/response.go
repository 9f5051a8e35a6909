package transform

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// askForWhole adapts a request header so that the backend sends a complete, unencoded
// response.
func askForWhole(header http.Header) {
	header["Accept-Encoding"] = []string{"identity"}
	delete(header, "Range")
	delete(header, "If-Range")
}

// changeResponse calls the next handler and changes its response.
func (x *transformation) changeResponse(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ww := &responseWriter{transformation: *x}
	ww.ResponseWriter = w
	if x.response.editsBody() {
		ww.before = w.Header().Clone()
	}
	defer ww.release()
	err := ww.run(r, next)
	if err == nil && !ww.hijacked {
		ww.began()
		if ww.state == holding || ww.state == sniffing {
			err = ww.sendHeld()
		}
	}
	switch ww.state {
	case refusing:
		ww.restoreHeader()
		return x.refuse(w, r, http.StatusBadGateway, ww.obstacle)
	case holding, sniffing: // next failed before a header was sent: the error handler responds
		ww.restoreHeader()
	case passing: // fields set after the header are sent as trailers
		x.response.headers.strip(w.Header(), http.TrailerPrefix)
		if w.Header()["Trailer"] != nil {
			x.response.headers.strip(w.Header(), "")
		}
	}
	return err
}

// responseWriter changes a response. It buffers a body that must be changed until the
// body is complete, and streams other bodies.
type responseWriter struct {
	caddyhttp.ResponseWriterWrapper
	transformation

	state    writerState
	status   int           // the status sent to the client
	claimed  bool          // the body is treated as JSON
	before   http.Header   // copy of the header before next was called; used to restore it
	held     *bytes.Buffer // the buffered body
	obstacle error         // the reason for rejecting the response
	hijacked bool
}

type writerState uint8

const (
	waiting  writerState = iota // no header yet
	sniffing                    // buffering the first bytes to detect JSON
	passing                     // streaming the body
	dropping                    // discarding the body: the new status does not allow one
	holding                     // buffering the whole body
	refusing                    // the response is rejected with 502
)

// run calls the next handler. The reverse proxy panics with http.ErrAbortHandler if a
// write fails because the response is rejected, or if the backend closes the connection
// too early. run recovers from this panic so that the client receives 502.
func (w *responseWriter) run(r *http.Request, next caddyhttp.Handler) error {
	defer func() {
		cutOff := w.state == holding && !w.lenient && r.Context().Err() == nil
		if w.state != refusing && !cutOff {
			return
		}
		cause := recover()
		if cause != nil && cause != http.ErrAbortHandler {
			panic(cause)
		}
		if cause != nil && cutOff {
			w.giveUp(errResponseCut)
		}
	}()
	return next.ServeHTTP(w, r)
}

// release returns the buffer to the pool.
func (w *responseWriter) release() {
	if w.held != nil {
		releaseBuffer(w.held)
		w.held = nil
	}
}

// restoreHeader restores the header to its state before next was called.
func (w *responseWriter) restoreHeader() {
	header := w.Header()
	clear(header)
	for name, values := range w.before {
		header[name] = values
	}
}

// WriteHeader chooses how the response is handled. It sends the header unless the body is
// buffered. Informational responses are forwarded immediately.
func (w *responseWriter) WriteHeader(status int) {
	if status < 200 && status != http.StatusSwitchingProtocols {
		w.response.headers.strip(w.Header(), "")
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.state != waiting {
		return
	}
	header := w.Header()
	w.status = w.response.statusFor(status)
	// Responses with status 205 must not have a body (RFC 9110, section 15.3.6), but some
	// backends send one.
	content := hasContent(status) || status == http.StatusResetContent && !w.response.body.empty()
	kind, clear := otherBody, true
	if w.response.editsBody() {
		kind, clear = bodyKindOf(header)
	}
	w.claimed = kind == jsonBody
	whole := content && w.response.changes(header, kind)
	sniff := content && kind == unknownBody && !w.lenient && !w.response.body.empty() && header.Get("Content-Length") != "0"
	switch {
	case content && !w.head && w.refuses(status, header, kind, clear):
	case content && !hasContent(w.status):
		for _, name := range []string{"Content-Length", "Content-Type", "Content-Encoding", "Etag", "Last-Modified", "Trailer"} {
			delete(header, name)
		}
		w.send(dropping)
	case whole && w.head:
		w.describe(header)
		w.send(passing)
	case whole:
		w.hold(holding, status, header)
	case sniff && w.head: // GET may return a changed body of another length
		delete(header, "Content-Length")
		w.send(passing)
	case sniff:
		w.hold(sniffing, status, header)
	default:
		if status == http.StatusNotModified && w.response.editsBody() {
			weakenETag(header)
		}
		w.send(passing)
	}
}

// refuses reports whether the response is rejected because of its header: the body may
// contain values that must be changed, but it cannot be edited.
func (w *responseWriter) refuses(status int, header http.Header, kind bodyKind, clear bool) bool {
	empty := header.Get("Content-Length") == "0"
	mayBeJSON := kind == jsonBody || kind == unknownBody && !empty
	switch {
	case w.response.body.empty() || w.lenient:
	case mayBeJSON && caddyhttp.IsIncremental(header):
		w.giveUp(errResponseIncremental)
	case status == http.StatusPartialContent && isByteRanges(header):
		w.giveUp(errResponsePartial)
	case w.response.strict && (kind == streamBody || mayBeJSON && !clear && !empty):
		w.giveUp(errResponseStrict)
	}
	return w.state == refusing
}

func isByteRanges(header http.Header) bool {
	types, _ := mediaTypes(header)
	return slices.Contains(types, "multipart/byteranges")
}

// hold starts to buffer the body for state. It rejects the response if the body cannot be
// changed.
func (w *responseWriter) hold(state writerState, status int, header http.Header) {
	switch {
	case isEncoded(header):
		w.giveUp(errResponseEncoded)
	case status == http.StatusPartialContent || header.Get("Content-Range") != "":
		w.giveUp(errResponsePartial)
	case state == holding && w.isTooLarge(header):
		w.giveUp(errResponseTooLarge)
	default:
		w.state = state
		w.held = buffers.Get().(*bytes.Buffer)
	}
}

func (w *responseWriter) isTooLarge(header http.Header) bool {
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	return err == nil && length > int64(w.MaxBody)
}

// sniff examines the buffered bytes. It continues to buffer a body that may be JSON and
// streams other bodies.
func (w *responseWriter) sniff() error {
	may, known := mayBeJSON(w.held.Bytes())
	switch {
	case !known:
		return nil
	case may:
		w.state, w.claimed = holding, true
		if w.isTooLarge(w.Header()) || w.held.Len() > int(w.MaxBody) {
			w.giveUp(errResponseTooLarge)
		}
		return w.obstacle
	}
	w.send(passing)
	_, err := w.held.WriteTo(w.ResponseWriter)
	return err
}

var (
	errResponseEncoded  = errors.New("the response is compressed although identity was requested: make the backend respect Accept-Encoding, or compress in the gateway (encode)")
	errResponsePartial  = errors.New("the response is partial although no range was requested")
	errResponseTooLarge = errors.New("the response is larger than max_body: increase max_body, or do not edit response bodies of this route")
	errResponseInvalid  = errors.New("the body of the response is not valid JSON or not in UTF-8")
	errResponseCut      = errors.New("the backend aborted the response")
	errResponseStrict   = errors.New("strict rejects JSON streams and responses without a valid Content-Type")

	errResponseIncremental = errors.New("the JSON response has an Incremental header field")
)

func (w *responseWriter) giveUp(obstacle error) { w.state, w.obstacle = refusing, obstacle }

// send edits and sends the header and enters state.
func (w *responseWriter) send(state writerState) {
	w.state = state
	plan := &w.response.headers
	plan.editHeader(w.Header(), plan.values(func(t textTemplate) string { return t.fieldValue(w.repl) }))
	w.ResponseWriter.WriteHeader(w.status)
}

// describe adapts the header to the changed body.
func (w *responseWriter) describe(header http.Header) {
	forgetDigests(header)
	for _, name := range []string{"Content-Length", "Content-Encoding", "Accept-Ranges"} {
		delete(header, name)
	}
	weakenETag(header)
	if w.response.envelope {
		header["Content-Type"] = []string{"application/json"}
	}
}

// weakenETag makes the ETag weak, because the body is no longer byte-for-byte identical.
func weakenETag(header http.Header) {
	if tag := header.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		header["Etag"] = []string{"W/" + tag}
	}
}

// hasContent reports whether responses with the status have a body.
func hasContent(status int) bool {
	switch status {
	case http.StatusSwitchingProtocols, http.StatusNoContent, http.StatusResetContent, http.StatusNotModified:
		return false
	}
	return true
}

// changes reports whether the plan changes the body of a response with this header.
func (p *responsePlan) changes(header http.Header, kind bodyKind) bool {
	switch {
	case !p.editsBody() || caddyhttp.IsIncremental(header): // refuses has rejected incremental JSON
		return false
	case kind == jsonBody:
		return true
	case !p.envelope:
		return false
	}
	types, clear := mediaTypes(header)
	return clear && strings.HasPrefix(types[0], "text/") && kind != streamBody ||
		header.Get("Content-Type") == "" && header.Get("Content-Length") == "0"
}

// sendHeld sends the buffered body, with the configured changes if possible.
func (w *responseWriter) sendHeld() error {
	header := w.Header()
	if w.state == sniffing { // the body ended before its kind was known
		w.send(passing)
		_, err := w.held.WriteTo(w.ResponseWriter)
		return err
	}
	// Remove trailers: the response is sent with Content-Length.
	for _, announced := range header["Trailer"] {
		for name := range strings.SplitSeq(announced, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	delete(header, "Trailer")
	for name := range header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			delete(header, name)
		}
	}
	body, changed, err := w.changedBody()
	if w.state == refusing {
		return nil
	}
	if err != nil {
		if c := w.Logger().Check(zapcore.WarnLevel, "passed a response without making all changes to its body"); c != nil {
			c.Write(zap.String("route", w.named("http.rgate.route")), zap.Int("status", w.status), zap.Error(err))
		}
	}
	if changed {
		w.describe(header)
	}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.send(passing)
	_, err = io.WriteString(w.ResponseWriter, body)
	return err
}

// changedBody returns the body for the client and whether it was edited. Unless the
// response is rejected, the error is only logged.
func (w *responseWriter) changedBody() (body string, changed bool, err error) {
	valid := false
	if w.claimed {
		body, valid = readJSON(w.held.Bytes())
	} else {
		body = w.held.String()
	}
	blank := strings.TrimSpace(body) == ""
	switch {
	case valid:
		body, err = w.response.body.edit(body, w.repl)
	case w.claimed && !blank:
		err = errResponseInvalid
	}
	if (err == errResponseInvalid || err == errNotMoved) && !w.lenient && !w.response.body.empty() {
		w.giveUp(err)
		return "", false, err
	}
	if !w.response.envelope {
		return body, valid, err
	}
	data := strings.TrimSpace(body)
	switch {
	case valid:
	case blank:
		data = "null"
	case !utf8.ValidString(body):
		return body, false, errResponseInvalid
	default:
		data = quoteJSON(body)
	}
	return w.envelop(data), true, err
}

// envelop returns the envelope with data, which is JSON.
func (w *responseWriter) envelop(data string) string {
	took := math.Round(float64(time.Since(w.start))/float64(time.Microsecond)) / 1000
	return `{"status":` + strconv.Itoa(w.status) + `,"data":` + data +
		`,"request_id":` + quoteJSON(w.requestID) + `,"service":` + quoteJSON(w.named("http.rgate.backend")) +
		`,"processing_time":` + strconv.FormatFloat(took, 'f', -1, 64) + `}`
}

// began sends the header with status 200 unless WriteHeader was called.
func (w *responseWriter) began() {
	if w.state == waiting {
		w.WriteHeader(http.StatusOK)
	}
}

func (w *responseWriter) Write(p []byte) (int, error) {
	w.began()
	switch w.state {
	case dropping:
		return len(p), nil
	case holding:
		if w.held.Len()+len(p) > int(w.MaxBody) {
			w.giveUp(errResponseTooLarge)
			return 0, w.obstacle
		}
		return w.held.Write(p)
	case sniffing:
		w.held.Write(p)
		return len(p), w.sniff()
	case refusing:
		return 0, w.obstacle
	}
	return w.ResponseWriter.Write(p)
}

func (w *responseWriter) ReadFrom(r io.Reader) (int64, error) {
	w.began()
	if w.state == passing {
		return w.ResponseWriterWrapper.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{w}, r)
}

// FlushError flushes the response unless its body is buffered.
func (w *responseWriter) FlushError() error {
	w.began()
	if w.state == holding || w.state == sniffing || w.state == refusing {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.hijacked = w.hijacked || err == nil
	return conn, buf, err
}

// Interface guards
var (
	_ http.Hijacker = (*responseWriter)(nil)
	_ io.ReaderFrom = (*responseWriter)(nil)
	_ http.Pusher   = (*responseWriter)(nil)
)
