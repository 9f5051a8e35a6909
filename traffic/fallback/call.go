package fallback

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// fallbackPlace is the key of a store.
type fallbackPlace struct{ gateway, backend, position string }

var staleStores = caddy.NewUsagePool() // *staleStore by fallbackPlace

// unusedFor is the time after which an unused store is removed. It covers the time
// between a reload and the first requests, which acquire the stores again.
const unusedFor = 5 * time.Minute

// Destruct implements caddy.Destructor.
func (l *staleStore) Destruct() error { return nil }

// storeAt returns the store for the backend of a request.
func (f *Fallback) storeAt(r *http.Request) *staleStore {
	at := policy.RouteInfoOf(r)
	place := fallbackPlace{at.Gateway, at.Backend, f.position.String()}
	if store, ok := f.stores.Get(place); ok {
		return store
	}
	return f.stores.Add(place, func() (*staleStore, func()) {
		store, _, _ := staleStores.LoadOrNew(place, func() (caddy.Destructor, error) { return new(staleStore), nil }) // never fails
		store.(*staleStore).limit(int64(f.MaxBytes))
		return store.(*staleStore), func() {
			time.AfterFunc(unusedFor, func() { _, _ = staleStores.Delete(place) }) // Destruct never fails
		}
	})
}

// fallbackCall is the state and the response writer of a request. It discards a failed
// response if a fallback is available, and records a successful response.
type fallbackCall struct {
	caddyhttp.ResponseWriterWrapper
	policy *Fallback
	w      http.ResponseWriter
	r      *http.Request
	state  policy.RequestState // nil outside of a gateway
	before httpx.HeaderMark
	body   *httpx.UnreadBody
	store  *staleStore       // nil if responses are not stored
	q      httpcache.Request // set if responses are stored
	key    []byte
	url    int // length of the URL part of the key

	began     bool
	hijacked  bool
	status    int
	discarded int            // status of the discarded response; 0 if none
	keep      *staleResponse // the response being recorded; nil if none
	length    int64          // Content-Length of keep; negative if unknown
}

var fallbackCalls = sync.Pool{New: func() any { return new(fallbackCall) }}

// reset prepares the call for another request.
func (c *fallbackCall) reset() {
	c.ResponseWriter, c.policy, c.w, c.r, c.state, c.body, c.store, c.keep = nil, nil, nil, nil, nil, nil, nil, nil
	c.began, c.status, c.discarded, c.q = false, 0, 0, httpcache.Request{}
}

// setKey sets the key of the request, which does not contain the method.
func (c *fallbackCall) setKey() {
	asked := policy.TargetOf(c.r)
	c.key = trust.AppendForwarded(c.key[:0], c.r)
	for _, part := range [...]string{policy.RouteInfoOf(c.r).Route, trust.SchemeOf(c.r), asked.Host, asked.Path, asked.Query} {
		c.key = sharing.AppendText(c.key, part)
	}
	c.key = sharing.AppendPort(sharing.AppendRewritten(c.key, c.r, &asked), c.r)
	c.url = len(c.key)
	if c.q.Bypass == "" {
		c.key = c.policy.sharing.AppendTo(c.key, c.r, &c.q)
	}
}

// stored returns the stored response for the request, or nil.
func (c *fallbackCall) stored() *staleResponse {
	if c.store == nil || c.q.Bypass != "" {
		return nil
	}
	return c.store.get(c.key, &c.q, time.Now())
}

func (c *fallbackCall) WriteHeader(status int) {
	if c.began || status < 200 && status != http.StatusSwitchingProtocols {
		if c.discarded == 0 {
			c.ResponseWriter.WriteHeader(status)
		}
		return
	}
	c.began, c.status = true, status
	if c.policy.failing.Has(status) && c.hasFallback(status) {
		c.discarded = status
		return
	}
	c.consider(status)
	c.ResponseWriter.WriteHeader(status)
}

// hasFallback reports whether a fallback is available after a response with the status.
func (c *fallbackCall) hasFallback(status int) bool {
	return c.r.Context().Err() == nil &&
		(c.policy.Response != nil || c.stored() != nil || c.otherBackend(failedCall{status: status}) != "")
}

// consider starts recording the response if it may be stored.
func (c *fallbackCall) consider(status int) {
	if c.store == nil || c.q.Bypass != "" || c.q.Head {
		return
	}
	header, now := c.ResponseWriter.Header(), time.Now()
	if c.store.isNew(c.key, &c.q, now) {
		return
	}
	response := httpcache.Response{Status: status, Header: header, Requested: now, Received: now}
	until, open, ok := storable(&response, &c.q, time.Duration(c.policy.Cached))
	if !ok {
		return
	}
	c.length = -1
	if text := header.Get("Content-Length"); text != "" {
		length, err := strconv.ParseInt(text, 10, 64)
		if err != nil || length > int64(c.policy.MaxBody) {
			return
		}
		c.length = length
	}
	c.keep = &staleResponse{
		status: status, header: c.before.Change(header), varied: httpcache.VariantOf(&c.q, header, true), open: open,
		at: now, age: response.Age(), until: until,
	}
	if c.length > 0 {
		c.keep.body = make([]byte, 0, c.length)
	}
}

// record appends p to the recorded body. It stops recording if the body exceeds MaxBody.
func (c *fallbackCall) record(p []byte) {
	switch {
	case c.keep == nil:
	case int64(len(c.keep.body)+len(p)) > int64(c.policy.MaxBody):
		c.keep = nil
	default:
		c.keep.body = append(c.keep.body, p...)
	}
}

// finish stores the recorded response. After a successful unsafe request, it removes the
// stored responses for the URL.
func (c *fallbackCall) finish() {
	if c.store == nil {
		return
	}
	switch c.r.Method {
	case http.MethodGet:
		if c.keep != nil && (c.length < 0 || c.length == int64(len(c.keep.body))) {
			c.keep.key, c.keep.url, c.keep.body = string(c.key), string(c.key[:c.url]), bytes.Clone(c.keep.body)
			c.store.put(c.keep, &c.q)
		}
	case http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect:
	default:
		if c.status < 400 {
			c.store.forget(c.key[:c.url])
		}
	}
}

func (c *fallbackCall) start() {
	if !c.began {
		c.WriteHeader(http.StatusOK)
	}
}

func (c *fallbackCall) Write(p []byte) (int, error) {
	c.start()
	if c.discarded != 0 {
		return len(p), nil
	}
	n, err := c.ResponseWriter.Write(p)
	c.record(p[:n])
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (c *fallbackCall) ReadFrom(r io.Reader) (int64, error) {
	c.start()
	if c.discarded != 0 || c.keep != nil {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	return c.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends the header if necessary and flushes the response.
func (c *fallbackCall) FlushError() error {
	c.start()
	if c.discarded != 0 {
		return nil
	}
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (c *fallbackCall) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if c.discarded != 0 {
		return nil, nil, http.ErrNotSupported
	}
	conn, buf, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err == nil {
		c.began, c.hijacked, c.keep = true, true, nil
	}
	return conn, buf, err
}

// unreadBody wraps the body of a request that may be sent to a fallback backend. It
// returns nil if there is no body.
func unreadBody(r *http.Request, state policy.RequestState) *httpx.UnreadBody {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || state == nil || httpx.LacksBody(r.Method) && !httpx.HasBody(r) {
		return nil
	}
	return httpx.WrapBody(r)
}

// Interface guards
var (
	_ http.Hijacker = (*fallbackCall)(nil)
	_ io.ReaderFrom = (*fallbackCall)(nil)
)
