package cache

import (
	"io"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// pass forwards a request without storing the response. field is the request field that
// prevents storing it, or "". After a successful unsafe request, pass invalidates the
// stored responses for its URL.
func (p *Cache) pass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, site *cacheSite, why httpcache.Forward, field string) error {
	site.counts.add(cacheBypass)
	p.addStatus(w, forwarded(why, false, field))
	if sharing.IsSafeMethod(r.Method) {
		return next.ServeHTTP(w, r)
	}
	effect := invalidations.Get().(*invalidation)
	effect.ResponseWriter = w
	defer func() {
		if effect.succeeded() && !site.store.Idle() {
			invalidate(site.store.Store, r, effect)
		}
		*effect = invalidation{}
		invalidations.Put(effect)
	}()
	err := next.ServeHTTP(effect, r)
	effect.returned = err == nil
	return err
}

// invalidate removes the stored responses for the URL of a request (RFC 9111, section
// 4.4). It also removes responses for the URLs in Location and Content-Location if they
// have the same origin.
func invalidate(store *httpcache.Store, r *http.Request, effect *invalidation) {
	url := cacheURL(r)
	store.Invalidate(url)
	for _, reference := range []string{effect.location, effect.contentLocation} {
		if reference == "" {
			continue
		}
		if other := httpcache.SameOrigin(url, reference); other != "" && other != url {
			store.Invalidate(other)
		}
	}
}

var invalidations = sync.Pool{New: func() any { return new(invalidation) }}

// invalidation is a response writer that records the status and references of the
// response to an unsafe request.
type invalidation struct {
	caddyhttp.ResponseWriterWrapper
	status                    int
	location, contentLocation string
	returned                  bool // the next handler returned without an error
}

// succeeded reports whether the response is a success or a redirect.
func (w *invalidation) succeeded() bool {
	return w.status >= 200 && w.status < 400 || w.status == 0 && w.returned
}

func (w *invalidation) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
		h := w.Header()
		w.location, w.contentLocation = h.Get("Location"), h.Get("Content-Location")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *invalidation) Write(p []byte) (int, error) {
	w.began()
	return w.ResponseWriter.Write(p)
}

func (w *invalidation) ReadFrom(r io.Reader) (int64, error) {
	w.began()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends the header if necessary and flushes the response.
func (w *invalidation) FlushError() error {
	w.began()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *invalidation) began() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

// Interface guard
var _ io.ReaderFrom = (*invalidation)(nil)
