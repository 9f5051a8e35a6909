package cache

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/traffic/httpcache"
)

const (
	validationTimeout = 30 * time.Second
	validationPause   = time.Second // minimum time between validations of the same response
	mostValidations   = 64          // maximum number of concurrent validations of a policy
)

// cacheBackground runs the background requests of a policy.
type cacheBackground struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	count  int  // number of running validations. Guarded by mu.
	ended  bool // Guarded by mu.
	all    sync.WaitGroup
}

func (b *cacheBackground) start() { b.ctx, b.cancel = context.WithCancel(context.Background()) }

// stop cancels all requests and waits until they have returned.
func (b *cacheBackground) stop() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.cancel()
	b.all.Wait()
}

// run calls f in a goroutine. It returns false if too many validations are running or
// stop was called.
func (b *cacheBackground) run(f func(context.Context)) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.count >= mostValidations {
		return false
	}
	b.count++
	b.all.Go(func() {
		ctx, cancel := context.WithTimeout(b.ctx, validationTimeout)
		defer cancel()
		f(ctx)
		b.mu.Lock()
		b.count--
		b.mu.Unlock()
	})
	return true
}

// validate validates a stale response in the background. It does nothing if a validation
// of the response is in progress or ended less than validationPause ago, if mostValidations
// of the policy are running, or after stop.
func (p *Cache) validate(r *http.Request, next caddyhttp.Handler, site *cacheSite, q httpcache.Request, key httpcache.Key, stored *httpcache.Entry, now time.Time) {
	if !stored.TryValidate(now) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := noClient{make(http.Header)}
	asked := httpx.Detach(ctx, r, w)
	asked.Method = http.MethodGet
	for _, name := range []string{"Range", "If-Range", "If-None-Match", "If-Modified-Since", "Cache-Control", "Pragma"} {
		asked.Header.Del(name)
	}
	q.Head, q.Range, q.Conditional = false, false, false
	q.NoCache, q.NoStore, q.OnlyIfCached = false, false, false
	q.MaxAge, q.MaxStale, q.MinFresh = httpcache.Absent, httpcache.Absent, httpcache.Absent
	own := key.Clone()
	t := &recorder{policy: p, site: site, q: q, stored: stored, why: httpcache.Stale, alone: true}
	started := p.background.run(func(limit context.Context) {
		defer context.AfterFunc(limit, cancel)()
		defer cancel()
		defer func() { stored.EndValidation(time.Now().Add(validationPause)) }()
		if err := forwardAlone(p, w, asked, next, own, t); err != nil && limit.Err() != context.Canceled {
			p.Logger().Warn("validating a stale response in the background failed",
				zap.String("route", site.place.Route), zap.String("backend", site.place.Backend), zap.Error(err))
		}
	})
	if !started {
		cancel()
		stored.EndValidation(now.Add(validationPause))
	}
}

// forwardAlone calls forward for a background request. It recovers from panics, because
// no HTTP server does.
func forwardAlone(p *Cache, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, key httpcache.Key, t *recorder) (err error) {
	defer func() {
		switch cause := recover(); cause {
		case nil:
		case http.ErrAbortHandler:
			err = errors.New("the response is incomplete")
		default:
			err = fmt.Errorf("a handler panicked: %v", cause)
		}
	}()
	return p.forward(w, r, next, key, t)
}

// noClient is a response writer that discards the response.
type noClient struct{ header http.Header }

func (n noClient) Header() http.Header         { return n.header }
func (n noClient) Write(p []byte) (int, error) { return len(p), nil }
func (n noClient) WriteHeader(int)             {}
