package cache

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/traffic/httpcache"
)

var errNotStored = errors.New("no stored response can be used for a request with only-if-cached")

// recorder forwards a request to the backend. As a response writer, it records the
// response while the response is streamed to the client.
type recorder struct {
	caddyhttp.ResponseWriterWrapper // the client's writer
	policy                          *Cache
	site                            *cacheSite
	q                               httpcache.Request
	stored                          *httpcache.Entry // the stored response, which requires validation; nil if none
	why                             httpcache.Forward
	alone                           bool // a background request, without a client

	request    *http.Request // the client's request
	asked      http.Header   // the original request header
	sent       http.Header   // the header of the forwarded request, which later handlers may change
	requested  time.Time
	fetch      *httpcache.Fetch
	validating bool        // the request contains the validators of the stored response
	before     http.Header // the response header before next is called

	status          int              // status of the response; 0 before WriteHeader
	length          int64            // Content-Length; -1 if unknown
	written         int64            // bytes of the body sent so far
	entry           *httpcache.Entry // the entry being recorded; nil if the response is not stored
	field           string           // the request field that prevents storing; "" if none
	replaced        bool             // the stored response was served in place of the backend's response
	discardedHeader http.Header      // the header of the backend's response if replaced
	outdated        bool             // the response invalidates the stored one
}

// forward sends the request to the next handler and stores the response if allowed.
func (p *Cache) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, key httpcache.Key, t *recorder) error {
	t.ResponseWriter, t.request, t.requested = w, r, time.Now()
	t.before, t.asked = maps.Clone(w.Header()), r.Header.Clone()
	t.q.Header = t.asked
	t.fetch = t.site.store.Begin(key)
	defer t.fetch.End()
	conditionalRequest := t.conditionalRequest(r)
	t.sent = conditionalRequest.Header
	err := next.ServeHTTP(t, conditionalRequest)
	if err != nil {
		return t.failed(err)
	}
	t.finish()
	return nil
}

// conditionalRequest returns the request to the backend. It adds the validators of the
// stored response, if any.
func (t *recorder) conditionalRequest(r *http.Request) *http.Request {
	if t.stored == nil || t.q.Range {
		return r
	}
	etag, lastModified := t.stored.Validators()
	if etag == "" && lastModified == "" {
		return r
	}
	t.validating = true
	asked := r.WithContext(r.Context())
	asked.Header = maps.Clone(r.Header)
	// The client's conditions are evaluated after the validation.
	delete(asked.Header, "If-None-Match")
	delete(asked.Header, "If-Modified-Since")
	if etag != "" {
		asked.Header["If-None-Match"] = []string{etag}
	}
	if lastModified != "" {
		asked.Header["If-Modified-Since"] = []string{lastModified}
	}
	return asked
}

// Header implements http.ResponseWriter.
func (t *recorder) Header() http.Header {
	if t.replaced {
		return t.discardedHeader
	}
	return t.ResponseWriter.Header()
}

// WriteHeader serves the stored response if it was validated or may replace an error.
// Otherwise it forwards the response and records it if it may be stored.
func (t *recorder) WriteHeader(status int) {
	if t.status != 0 || t.replaced || status < 200 && status != http.StatusSwitchingProtocols {
		if !t.replaced {
			t.ResponseWriter.WriteHeader(status)
		}
		return
	}
	t.status = status
	now := time.Now()
	switch {
	case t.validating && status == http.StatusNotModified:
		t.serveInstead(func() { t.revalidated(now) })
		return
	case maskable(status) && t.usableOnError(now):
		t.serveInstead(func() { t.serveStale(now, status) })
		// Flush because reading the rest of the error response may take long.
		_ = http.NewResponseController(t.ResponseWriter).Flush()
		return
	}
	t.receive(status, now)
	if !t.alone {
		t.site.counts.add(t.result())
	}
	t.policy.addStatus(t, forwarded(t.why, t.entry != nil, t.field))
	t.ResponseWriter.WriteHeader(status)
}

// result returns the result of a forwarded request, for the metrics.
func (t *recorder) result() int {
	if t.field != "" {
		return cacheBypass
	}
	return cacheMiss
}

// maskable reports whether a stored response may be served in place of a response with
// the status (RFC 5861, section 4).
func maskable(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func (t *recorder) usableOnError(now time.Time) bool {
	return t.stored != nil && t.stored.UsableOnError(&t.q, now)
}

// serveInstead discards the backend's response and calls serve to send another one.
func (t *recorder) serveInstead(serve func()) {
	h := t.ResponseWriter.Header()
	discarded := maps.Clone(h)
	clear(h)
	maps.Copy(h, t.before)
	t.discardedHeader = discarded
	t.replaced = true
	serve()
}

// response returns the backend's response without the fields set by other handlers.
func (t *recorder) response(h http.Header, status int, now time.Time) (a *httpcache.Response, adds map[string]bool, drops []string) {
	own, adds, drops := httpcache.Difference(t.before, h)
	if own["Date"] == nil {
		own["Date"] = []string{now.UTC().Format(http.TimeFormat)}
	}
	return &httpcache.Response{Status: status, Header: own, Requested: t.requested, Received: now}, adds, drops
}

// revalidated serves the stored response after the backend has validated it.
func (t *recorder) revalidated(now time.Time) {
	p, site := t.policy, t.site
	a, _, _ := t.response(t.discardedHeader, http.StatusNotModified, now)
	fresh, store, keep := t.stored.Validated(&p.options, &t.q, a)
	t.rest(fresh, now)
	switch {
	case store:
		site.store.Replace(t.stored, fresh, &t.q)
	case !keep:
		site.store.Remove(t.stored)
	}
	if !t.alone {
		site.counts.add(cacheRevalidated)
	}
	p.replay(t.ResponseWriter, t.request, t.q, fresh, now, cacheStatus{why: t.why, status: http.StatusNotModified, stored: store})
}

// serveStale serves the stored response after a failure of the backend. status is the
// backend's status, or 0 if it did not respond.
func (t *recorder) serveStale(now time.Time, status int) {
	if !t.alone {
		t.site.counts.add(cacheStale)
	}
	t.policy.replay(t.ResponseWriter, t.request, t.q, t.stored, now, cacheStatus{why: t.why, status: status, detail: "stale-if-error"})
}

// receive starts recording the response if it may be stored. It also determines whether
// the response invalidates the stored one.
func (t *recorder) receive(status int, now time.Time) {
	h := t.Header()
	t.length = -1
	if text := h.Get("Content-Length"); text != "" {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			t.length = n
		}
	}
	if t.stored == nil {
		var refused bool
		if refused, t.field = t.policy.options.Refuses(&t.q, status, h); refused {
			return
		}
	}
	a, adds, drops := t.response(h, status, now)
	t.outdated = t.supersedes(a)
	if t.q.Head || h["X-Gateway-Fallback"] != nil || t.length > int64(t.policy.MaxBody) {
		return
	}
	freshness, ok, field := t.policy.options.Judge(&t.q, a)
	t.field = field
	if !ok || !t.fetch.Record(now, t.length) {
		return
	}
	t.entry = httpcache.NewEntry(freshness, a, adds, drops)
	t.rest(t.entry, now)
	if h["Date"] == nil {
		h["Date"] = a.Header["Date"]
	}
}

// rest delays the next validation of e if it is the result of a background request.
// Without the delay, a response that is already stale would be validated again
// immediately.
func (t *recorder) rest(e *httpcache.Entry, now time.Time) {
	if t.alone {
		e.EndValidation(now.Add(validationPause))
	}
}

// supersedes reports whether a response invalidates the stored one, even if the new
// response must not be stored. The client's credentials have no influence.
func (t *recorder) supersedes(a *httpcache.Response) bool {
	switch {
	case t.stored == nil || t.q.Range:
		return false
	case a.Status < 200 || a.Status >= 400 && a.Status != http.StatusNotFound && a.Status != http.StatusGone:
		return false // errors do not invalidate the stored response
	case t.q.Head:
		return a.Status == http.StatusOK && t.stored.Differs(a, t.length)
	case t.length > int64(t.policy.MaxBody):
		return true
	}
	_, may, _ := t.policy.options.Judge(new(httpcache.Request), a)
	return !may
}

// Write implements io.Writer.
func (t *recorder) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	if t.replaced {
		return len(p), nil
	}
	if t.entry != nil && !t.fetch.Write(p, int64(t.policy.MaxBody)) {
		t.entry = nil
	}
	n, err := t.ResponseWriter.Write(p)
	t.written += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom. Bodies that are not recorded are passed to the
// underlying writer, which may use sendfile.
func (t *recorder) ReadFrom(r io.Reader) (int64, error) {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	if t.replaced || t.entry != nil {
		return io.Copy(struct{ io.Writer }{t}, r)
	}
	n, err := t.ResponseWriterWrapper.ReadFrom(r)
	t.written += n
	return n, err
}

// FlushError flushes the response.
func (t *recorder) FlushError() error {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	if t.replaced {
		return nil
	}
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// failed serves the stored response in place of the error of a handler, if allowed.
func (t *recorder) failed(err error) error {
	status := http.StatusInternalServerError
	var handlerErr caddyhttp.HandlerError
	if errors.As(err, &handlerErr) && handlerErr.StatusCode != 0 {
		status = handlerErr.StatusCode
	}
	now := time.Now()
	left := errors.Is(t.request.Context().Err(), context.Canceled)
	if t.status != 0 || left || !maskable(status) || !t.usableOnError(now) {
		if t.status == 0 && !t.alone {
			t.site.counts.add(cacheMiss)
			t.policy.addStatus(t.ResponseWriter, forwarded(t.why, false, ""))
		}
		return err
	}
	t.serveInstead(func() { t.serveStale(now, 0) })
	return nil
}

// finish stores the response if it is complete.
func (t *recorder) finish() {
	if t.replaced {
		return
	}
	stored := t.entry != nil && t.isComplete() && t.fetch.Store(t.entry, &t.q)
	if t.outdated && !stored {
		t.site.store.Remove(t.stored)
	}
}

// isComplete reports whether the whole body was recorded and the response has no
// trailers. It also requires that the backend received the fields named in Vary
// unchanged.
func (t *recorder) isComplete() bool {
	for name := range t.Header() {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return false
		}
	}
	return t.fetch.Len() == t.written && (t.length < 0 || t.length == t.written) &&
		httpcache.SameVariant(t.Header(), t.asked, t.sent)
}

// Interface guards
var (
	_ io.ReaderFrom = (*recorder)(nil)
	_ http.Pusher   = (*recorder)(nil)
)
