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

var errNotStored = errors.New("the client wants a stored answer alone, and there is none")

// transfer is a request that goes on to the backend, and the writer that takes the
// answer. That streams to the client while it is recorded.
type transfer struct {
	caddyhttp.ResponseWriterWrapper // the client's
	policy                          *Cache
	site                            *cacheSite
	q                               httpcache.Request
	stored                          *httpcache.Entry // what is in the store and may not be given as it is
	why                             httpcache.Forward
	alone                           bool // nobody waits for the answer

	request    *http.Request // the client's
	asked      http.Header   // its header, as it came
	sent       http.Header   // that of the request that went on, which other handlers may change
	requested  time.Time
	flight     *httpcache.Flight
	validating bool        // the backend was asked whether the stored answer still holds
	before     http.Header // what others had set before the backend answered

	status   int              // of the answer, 0 before it began
	length   int64            // that it announces, or -1
	written  int64            // of its body
	entry    *httpcache.Entry // that is being recorded
	field    string           // of the request, because of which nothing is recorded
	settled  bool             // the client was given what is stored in place of the answer
	settling http.Header      // what takes the header of an answer that the client does not get
	outdated bool             // the answer shows that what is stored does not hold
}

// forward lets the next handler answer, and stores the answer if it may be stored.
func (p *Cache) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, key httpcache.Key, t *transfer) error {
	t.ResponseWriter, t.request, t.requested = w, r, time.Now()
	t.before, t.asked = maps.Clone(w.Header()), r.Header.Clone()
	t.q.Header = t.asked
	t.flight = t.site.store.Begin(key)
	defer t.flight.End()
	question := t.question(r)
	t.sent = question.Header
	err := next.ServeHTTP(t, question)
	if err != nil {
		return t.failed(err)
	}
	t.finish()
	return nil
}

// question is the request as the backend gets it: with the validators of what is
// stored, if there are any.
func (t *transfer) question(r *http.Request) *http.Request {
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
	// The client's own conditions are judged by what is stored once that is known to hold.
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

// Header returns the header of the answer.
func (t *transfer) Header() http.Header {
	if t.settled {
		return t.settling
	}
	return t.ResponseWriter.Header()
}

// WriteHeader decides what is to become of an answer.
func (t *transfer) WriteHeader(status int) {
	if t.status != 0 || t.settled || status < 200 && status != http.StatusSwitchingProtocols {
		if !t.settled {
			t.ResponseWriter.WriteHeader(status)
		}
		return
	}
	t.status = status
	now := time.Now()
	switch {
	case t.validating && status == http.StatusNotModified:
		t.settle(func() { t.holds(now) })
		return
	case maskable(status) && t.usableOnError(now):
		t.settle(func() { t.giveStale(now, status) })
		// What the backend has to say about its failure may take long.
		_ = http.NewResponseController(t.ResponseWriter).Flush()
		return
	}
	t.receive(status, now)
	if !t.alone {
		t.site.counts.add(t.result())
	}
	t.policy.tell(t, forwarded(t.why, t.entry != nil, t.field))
	t.ResponseWriter.WriteHeader(status)
}

// result is what became of a request whose response came from the backend.
func (t *transfer) result() int {
	if t.field != "" {
		return cacheBypass
	}
	return cacheMiss
}

// maskable reports whether a status is one in place of which a stored answer may be
// given (RFC 5861, section 4).
func maskable(status int) bool {
	switch status {
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func (t *transfer) usableOnError(now time.Time) bool {
	return t.stored != nil && t.stored.UsableOnError(&t.q, now)
}

// settle gives the client something else than the answer that is coming.
func (t *transfer) settle(give func()) {
	h := t.ResponseWriter.Header()
	answer := maps.Clone(h)
	clear(h)
	maps.Copy(h, t.before)
	t.settling = answer
	t.settled = true
	give()
}

// answer is what is known of the backend's answer, without what others have set.
func (t *transfer) answer(h http.Header, status int, now time.Time) (a *httpcache.Answer, adds map[string]bool, drops []string) {
	own, adds, drops := httpcache.Difference(t.before, h)
	if own["Date"] == nil {
		own["Date"] = []string{now.UTC().Format(http.TimeFormat)}
	}
	return &httpcache.Answer{Status: status, Header: own, Requested: t.requested, Received: now}, adds, drops
}

// holds gives what is stored, for the backend says that it still holds.
func (t *transfer) holds(now time.Time) {
	p, site := t.policy, t.site
	a, _, _ := t.answer(t.settling, http.StatusNotModified, now)
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
	p.replay(t.ResponseWriter, t.request, t.q, fresh, now, provenance{why: t.why, status: http.StatusNotModified, stored: store})
}

// giveStale gives what is stored, for the backend has failed; with a status, or with 0
// if there was no answer.
func (t *transfer) giveStale(now time.Time, status int) {
	if !t.alone {
		t.site.counts.add(cacheStale)
	}
	t.policy.replay(t.ResponseWriter, t.request, t.q, t.stored, now, provenance{why: t.why, status: status, detail: "stale-if-error"})
}

// receive begins to record an answer that is to be stored, and finds out whether it
// shows that what is stored does not hold.
func (t *transfer) receive(status int, now time.Time) {
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
	a, adds, drops := t.answer(h, status, now)
	t.outdated = t.supersedes(a)
	if t.q.Head || h["X-Gateway-Fallback"] != nil || t.length > int64(t.policy.MaxBody) {
		return
	}
	freshness, ok, field := t.policy.options.Judge(&t.q, a)
	t.field = field
	if !ok || !t.flight.Record(now, t.length) {
		return
	}
	t.entry = httpcache.NewEntry(freshness, a, adds, drops)
	t.rest(t.entry, now)
	if h["Date"] == nil {
		h["Date"] = a.Header["Date"]
	}
}

// rest sees to it that an answer that came in the background is not asked for again at
// once: it may be stale already.
func (t *transfer) rest(e *httpcache.Entry, now time.Time) {
	if t.alone {
		e.EndValidation(now.Add(validationPause))
	}
}

// supersedes reports whether an answer shows that what is stored does not hold, even
// if the answer itself may not be stored. That it may not because of who asked for it
// shows nothing.
func (t *transfer) supersedes(a *httpcache.Answer) bool {
	switch {
	case t.stored == nil || t.q.Range:
		return false
	case a.Status < 200 || a.Status >= 400 && a.Status != http.StatusNotFound && a.Status != http.StatusGone:
		return false // it is about the request, or says nothing
	case t.q.Head:
		return a.Status == http.StatusOK && t.stored.Differs(a, t.length)
	case t.length > int64(t.policy.MaxBody):
		return true
	}
	_, may, _ := t.policy.options.Judge(new(httpcache.Request), a)
	return !may
}

// Write passes on a part of the body.
func (t *transfer) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	if t.settled {
		return len(p), nil
	}
	if t.entry != nil && !t.flight.Write(p, int64(t.policy.MaxBody)) {
		t.entry = nil
	}
	n, err := t.ResponseWriter.Write(p)
	t.written += int64(n)
	return n, err
}

// ReadFrom passes on the body, by the fastest way if nobody looks at it.
func (t *transfer) ReadFrom(r io.Reader) (int64, error) {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	if t.settled || t.entry != nil {
		return io.Copy(struct{ io.Writer }{t}, r)
	}
	n, err := t.ResponseWriterWrapper.ReadFrom(r)
	t.written += n
	return n, err
}

// FlushError sends what the client has to get so far.
func (t *transfer) FlushError() error {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	if t.settled {
		return nil
	}
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// failed gives what is stored in place of an error of the backend, if it may be given.
func (t *transfer) failed(err error) error {
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
			t.policy.tell(t.ResponseWriter, forwarded(t.why, false, ""))
		}
		return err
	}
	t.settle(func() { t.giveStale(now, 0) })
	return nil
}

// finish stores the answer if all of it has come.
func (t *transfer) finish() {
	if t.settled {
		return
	}
	stored := t.entry != nil && t.isComplete() && t.flight.Store(t.entry, &t.q)
	if t.outdated && !stored {
		t.site.store.Remove(t.stored)
	}
}

// isComplete reports whether all of the body has been recorded, no trailers have come
// after it, and the backend saw those fields that the answer depends on as the client
// sent them.
func (t *transfer) isComplete() bool {
	for name := range t.Header() {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return false
		}
	}
	return t.flight.Len() == t.written && (t.length < 0 || t.length == t.written) &&
		httpcache.SameVariant(t.Header(), t.asked, t.sent)
}

// Interface guards
var (
	_ io.ReaderFrom = (*transfer)(nil)
	_ http.Pusher   = (*transfer)(nil)
)
