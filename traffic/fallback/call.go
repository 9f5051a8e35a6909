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
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// fallbackPlace is what kept responses belong to.
type fallbackPlace struct{ gateway, backend, position string }

var lastGoods = caddy.NewUsagePool() // of *lastGood, by fallbackPlace

// keptUnused is how long answers are kept that no policy uses: after a reload, those
// of the new configuration take hold of theirs by their first requests.
const keptUnused = 5 * time.Minute

// Destruct implements caddy.Destructor.
func (l *lastGood) Destruct() error { return nil }

// storeAt finds the answers that are kept for the backend of a request.
func (f *Fallback) storeAt(r *http.Request) *lastGood {
	at := policy.PlaceOf(r)
	place := fallbackPlace{at.Gateway, at.Backend, f.position.String()}
	if store, ok := f.stores.Get(place); ok {
		return store
	}
	return f.stores.Add(place, func() (*lastGood, func()) {
		store, _, _ := lastGoods.LoadOrNew(place, func() (caddy.Destructor, error) { return new(lastGood), nil }) // never fails
		store.(*lastGood).limit(int64(f.MaxBytes))
		return store.(*lastGood), func() {
			time.AfterFunc(keptUnused, func() { _, _ = lastGoods.Delete(place) }) // Destruct never fails
		}
	})
}

// fallbackCall is a request on its way through the policy, and the writer of its
// answer: that throws away an answer in place of which the policy has a better one,
// and keeps a good one.
type fallbackCall struct {
	caddyhttp.ResponseWriterWrapper
	policy   *Fallback
	w        http.ResponseWriter
	r        *http.Request
	exchange policy.Exchange // nil outside of a gateway
	before   httpx.HeaderMark
	body     *httpx.UnreadBody
	store    *lastGood         // nil: no responses are kept
	q        httpcache.Request // read if responses are kept
	key      []byte
	url      int // how much of the key is where the request goes

	began      bool
	hijacked   bool
	status     int
	thrownAway int         // the status of the answer that was thrown away; 0: none
	keep       *goodAnswer // that may be kept once it is whole; nil: none
	length     int64       // what its length is said to be; negative: nothing is said
}

var fallbackCalls = sync.Pool{New: func() any { return new(fallbackCall) }}

// reset makes the call ready for another request. The mark is overwritten then.
func (c *fallbackCall) reset() {
	c.ResponseWriter, c.policy, c.w, c.r, c.exchange, c.body, c.store, c.keep = nil, nil, nil, nil, nil, nil, nil, nil
	c.began, c.status, c.thrownAway, c.q = false, 0, 0, httpcache.Request{}
}

// setKey sets what the request asks for. Methods have no part in it.
func (c *fallbackCall) setKey() {
	asked := policy.TargetOf(c.r)
	c.key = policy.AppendForwarded(c.key[:0], c.r)
	for _, part := range [...]string{policy.PlaceOf(c.r).Route, policy.SchemeOf(c.r), asked.Host, asked.Path, asked.Query} {
		c.key = sharing.AppendText(c.key, part)
	}
	c.key = sharing.AppendPort(sharing.AppendRewritten(c.key, c.r, &asked), c.r)
	c.url = len(c.key)
	if c.q.Bypass == "" {
		c.key = c.policy.sharing.AppendTo(c.key, c.r, &c.q)
	}
}

// kept returns the kept response to the request, or nil.
func (c *fallbackCall) kept() *goodAnswer {
	if c.store == nil || c.q.Bypass != "" {
		return nil
	}
	return c.store.get(c.key, &c.q, time.Now())
}

func (c *fallbackCall) WriteHeader(status int) {
	if c.began || status < 200 && status != http.StatusSwitchingProtocols {
		if c.thrownAway == 0 {
			c.ResponseWriter.WriteHeader(status)
		}
		return
	}
	c.began, c.status = true, status
	if c.policy.failing.Has(status) && c.hasBetter(status) {
		c.thrownAway = status
		return
	}
	c.consider(status)
	c.ResponseWriter.WriteHeader(status)
}

// hasBetter reports whether there is something in place of an answer.
func (c *fallbackCall) hasBetter(status int) bool {
	return c.r.Context().Err() == nil &&
		(c.policy.Response != nil || c.kept() != nil || c.otherBackend(failure{status: status}) != "")
}

// consider looks whether the answer that begins may be kept.
func (c *fallbackCall) consider(status int) {
	if c.store == nil || c.q.Bypass != "" || c.q.Head {
		return
	}
	header, now := c.ResponseWriter.Header(), time.Now()
	if c.store.isNew(c.key, &c.q, now) {
		return
	}
	answer := httpcache.Answer{Status: status, Header: header, Requested: now, Received: now}
	until, open, ok := keepable(&answer, &c.q, time.Duration(c.policy.Cached))
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
	c.keep = &goodAnswer{
		status: status, header: c.before.Change(header), varied: httpcache.VariantOf(&c.q, header, true), open: open,
		at: now, age: answer.Age(), until: until,
	}
	if c.length > 0 {
		c.keep.body = make([]byte, 0, c.length)
	}
}

// see takes a part of the body that is written.
func (c *fallbackCall) see(p []byte) {
	switch {
	case c.keep == nil:
	case int64(len(c.keep.body)+len(p)) > int64(c.policy.MaxBody):
		c.keep = nil
	default:
		c.keep.body = append(c.keep.body, p...)
	}
}

// finish keeps the answer, which is whole; or if it was one to a request that has
// changed something, forgets what was kept.
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
	if c.thrownAway != 0 {
		return len(p), nil
	}
	n, err := c.ResponseWriter.Write(p)
	c.see(p[:n])
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (c *fallbackCall) ReadFrom(r io.Reader) (int64, error) {
	c.start()
	if c.thrownAway != 0 || c.keep != nil {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	return c.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends what is buffered, which may be nothing but the header.
func (c *fallbackCall) FlushError() error {
	c.start()
	if c.thrownAway != 0 {
		return nil
	}
	return http.NewResponseController(c.ResponseWriter).Flush()
}

// Hijack hands over the connection as it is.
func (c *fallbackCall) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if c.thrownAway != 0 {
		return nil, nil, http.ErrNotSupported
	}
	conn, buf, err := http.NewResponseController(c.ResponseWriter).Hijack()
	if err == nil {
		c.began, c.hijacked, c.keep = true, true, nil
	}
	return conn, buf, err
}

// unreadBody wraps the body of a request that a fallback backend may need. It returns nil
// if there is no body.
func unreadBody(r *http.Request, exchange policy.Exchange) *httpx.UnreadBody {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || exchange == nil || policy.LacksBody(r.Method) && !policy.HasBody(r) {
		return nil
	}
	return httpx.WrapBody(r)
}

// Interface guards
var (
	_ http.Hijacker = (*fallbackCall)(nil)
	_ io.ReaderFrom = (*fallbackCall)(nil)
)
