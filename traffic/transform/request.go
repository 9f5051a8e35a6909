package transform

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/httpx"
)

// changeRequest changes a request for the backend. On an error, it returns the status for
// the client. It evaluates all values before it changes the request.
func (x *transformation) changeRequest(w http.ResponseWriter, r *http.Request) (status int, err error) {
	plan := x.request
	body, status, err := x.newBody(w, r)
	if err != nil {
		return status, err
	}
	var path, rawPath string
	if plan.path != nil {
		if path, rawPath, err = plan.path.path(x.repl); err != nil {
			return http.StatusBadRequest, err
		}
	}
	params := plan.query.values(func(t textTemplate) string { return t.in(x.repl) })
	fields := plan.headers.values(func(t textTemplate) string { return t.fieldValue(x.repl) })
	query := r.URL.RawQuery
	if !plan.query.empty() {
		query = plan.query.editQuery(query, params)
		if name := plan.query.hiddenIn(query); name != "" {
			return http.StatusBadRequest, fmt.Errorf("query parameter %q after a semicolon cannot be changed", name)
		}
	}

	if body.fromTemplate {
		r.Header["Content-Type"] = []string{"application/json"}
		delete(r.Header, "Content-Encoding")
	}
	plan.headers.editHeader(r.Header, fields)
	if host, ok := r.Header["Host"]; ok { // Host is not in the header of a server request
		r.Host = host[0]
		delete(r.Header, "Host")
	}
	if plan.path != nil || !plan.query.empty() {
		setTarget(r, plan.path != nil, path, rawPath, query)
	}
	if body.changed {
		setBody(r, body.text)
	}
	r.Method = cmp.Or(plan.method, r.Method)
	return 0, nil
}

// setTarget replaces the query and, if newPath is set, the path.
func setTarget(r *http.Request, newPath bool, path, rawPath, query string) {
	u := *r.URL // a copy: the URL may be shared with other handlers
	u.RawQuery = query
	target, _, _ := strings.Cut(r.RequestURI, "?") // the client's encoding of the path
	if newPath {
		u.Path, u.RawPath = path, rawPath
		target = u.EscapedPath()
	}
	if query != "" || u.ForceQuery {
		target += "?" + query
	}
	if r.URL = &u; r.RequestURI != "" {
		r.RequestURI = target
	}
}

// newBody is the body of the request to the backend.
type newBody struct {
	text         string
	changed      bool // the body is replaced by text
	fromTemplate bool
}

// newBody returns the body of the request to the backend. On an error, it returns the
// status for the client.
func (x *transformation) newBody(w http.ResponseWriter, r *http.Request) (body newBody, status int, err error) {
	plan := x.request
	if !plan.readsBody {
		return body, 0, nil
	}
	if x.claimsJSON(r) {
		if body.text, status, err = x.readBody(w, r); err != nil {
			return body, status, err
		}
		x.repl.Map(bodyPlaceholders(body.text))
		body.changed = true
	}
	switch {
	case plan.template != nil && allowsBody(cmp.Or(plan.method, r.Method)):
		return newBody{plan.template.in(x.repl), true, true}, 0, nil
	case body.changed:
		if body.text, err = plan.body.edit(body.text, x.repl); err != nil {
			return body, http.StatusBadRequest, err
		}
	}
	return body, 0, nil
}

// allowsBody reports whether a body is meaningful in requests with the method.
func allowsBody(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return false
	}
	return true
}

// claimsJSON reports whether the body of a request is treated as JSON: according to its
// Content-Type or, without a valid Content-Type, to its first bytes. An encoded body
// without a valid Content-Type is treated as JSON. In lenient mode, only the Content-Type
// counts.
func (x *transformation) claimsJSON(r *http.Request) bool {
	kind, _ := bodyKindOf(r.Header)
	switch {
	case kind != jsonBody && (kind != unknownBody || x.lenient), !httpx.HasBody(r):
		return false
	case kind == jsonBody, isEncoded(r.Header):
		return true
	}
	body := bufio.NewReaderSize(r.Body, maxLead)
	r.Body = struct {
		io.Reader
		io.Closer
	}{body, r.Body}
	for n := 1; ; n++ {
		begin, err := body.Peek(n)
		if may, known := mayBeJSON(begin); known || err != nil {
			return may
		}
	}
}

// readJSON returns a JSON body as a string, without a leading byte order mark. ok is
// false if the body is not valid JSON in UTF-8 (RFC 8259, section 8.1). Receivers decode
// other encodings in different ways.
func readJSON(body []byte) (text string, ok bool) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	return string(body), utf8.Valid(body) && json.Valid(body)
}

// isEncoded reports whether a body has a content coding, such as gzip.
func isEncoded(header http.Header) bool {
	for _, coding := range header["Content-Encoding"] {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			return true
		}
	}
	return false
}

var (
	errRequestEncoded     = errors.New("the JSON body of the request is compressed")
	errRequestIncremental = errors.New("the JSON request has an Incremental header field")
	errRequestTooLarge    = errors.New("the JSON body of the request is larger than max_body")
	errRequestInvalid     = errors.New("the JSON body of the request is malformed or not in UTF-8")
)

// readBody reads the JSON body of a request. On an error, it returns the status for the
// client.
func (x *transformation) readBody(w http.ResponseWriter, r *http.Request) (body string, status int, err error) {
	limit := int64(x.MaxBody)
	switch {
	case isEncoded(r.Header):
		w.Header().Set("Accept-Encoding", "identity") // RFC 9110, section 15.5.16
		return "", http.StatusUnsupportedMediaType, errRequestEncoded
	case caddyhttp.IsIncremental(r.Header):
		return "", http.StatusNotImplemented, errRequestIncremental
	case r.ContentLength > limit:
		return "", http.StatusRequestEntityTooLarge, errRequestTooLarge
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer releaseBuffer(buf)
	n, err := buf.ReadFrom(io.LimitReader(r.Body, limit+1))
	var exceeded *http.MaxBytesError
	switch {
	case errors.As(err, &exceeded):
		return "", http.StatusRequestEntityTooLarge, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", http.StatusRequestTimeout, err
	case err != nil:
		return "", http.StatusBadRequest, err
	case n > limit:
		return "", http.StatusRequestEntityTooLarge, errRequestTooLarge
	}
	text, ok := readJSON(buf.Bytes())
	if !ok {
		return "", http.StatusBadRequest, errRequestInvalid
	}
	return text, 0, nil
}

// setBody replaces the body of a request and adapts its header.
func setBody(r *http.Request, body string) {
	r.Body = io.NopCloser(strings.NewReader(body))
	r.ContentLength, r.TransferEncoding, r.Trailer = int64(len(body)), nil, nil
	forgetDigests(r.Header)
	for _, name := range []string{"Trailer", "Transfer-Encoding"} {
		delete(r.Header, name)
	}
	r.Header["Content-Length"] = []string{strconv.Itoa(len(body))}
}

// forgetDigests removes the digests of the original body.
func forgetDigests(header http.Header) {
	for _, name := range []string{"Content-Digest", "Content-Md5", "Digest", "Repr-Digest"} {
		delete(header, name)
	}
}

// maxPooled is the maximum capacity of a buffer that is returned to the pool, in bytes.
const maxPooled = 256 << 10

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func releaseBuffer(buf *bytes.Buffer) {
	if buf.Cap() <= maxPooled {
		buf.Reset()
		buffers.Put(buf)
	}
}
