package cache

import (
	"io"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// pass passes on a request whose response is not stored, perhaps because of a field. If
// the request may have changed something, what is stored about that is removed.
func (p *Cache) pass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, site *cacheSite, why httpcache.Forward, field string) error {
	site.counts.add(cacheBypass)
	p.tell(w, forwarded(why, false, field))
	if sharing.IsSafeMethod(r.Method) {
		return next.ServeHTTP(w, r)
	}
	watched := effectWatchers.Get().(*effectWatcher)
	watched.ResponseWriter = w
	defer func() {
		if watched.succeeded() && !site.store.Idle() {
			invalidate(site.store.Store, r, watched)
		}
		*watched = effectWatcher{}
		effectWatchers.Put(watched)
	}()
	err := next.ServeHTTP(watched, r)
	watched.returned = err == nil
	return err
}

// invalidate removes what is stored for the URL that a request was for, and for
// those of the same origin that its answer names (RFC 9111, section 4.4).
func invalidate(store *httpcache.Store, r *http.Request, answer *effectWatcher) {
	url := cacheURL(r)
	store.Invalidate(url)
	for _, reference := range []string{answer.location, answer.contentLocation} {
		if reference == "" {
			continue
		}
		if other := httpcache.SameOrigin(url, reference); other != "" && other != url {
			store.Invalidate(other)
		}
	}
}

var effectWatchers = sync.Pool{New: func() any { return new(effectWatcher) }}

// effectWatcher notes how a request was answered.
type effectWatcher struct {
	caddyhttp.ResponseWriterWrapper
	status                    int
	location, contentLocation string
	returned                  bool // without an error
}

// succeeded reports whether the request may have had an effect.
func (w *effectWatcher) succeeded() bool {
	return w.status >= 200 && w.status < 400 || w.status == 0 && w.returned
}

func (w *effectWatcher) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
		h := w.Header()
		w.location, w.contentLocation = h.Get("Location"), h.Get("Content-Location")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *effectWatcher) Write(p []byte) (int, error) {
	w.began()
	return w.ResponseWriter.Write(p)
}

func (w *effectWatcher) ReadFrom(r io.Reader) (int64, error) {
	w.began()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends what is buffered, which may be nothing but the header.
func (w *effectWatcher) FlushError() error {
	w.began()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *effectWatcher) began() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

// Interface guard
var _ io.ReaderFrom = (*effectWatcher)(nil)
