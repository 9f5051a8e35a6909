package fallback

import (
	"container/list"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// staleStore stores the last good responses of a backend in bounded memory. It evicts the
// least recently used response.
type staleStore struct {
	mu    sync.Mutex
	most  int64                      // limit in bytes. Guarded by mu.
	bytes int64                      // bytes in use. Guarded by mu.
	byKey map[string][]*list.Element // variants by key, the most recent last. Guarded by mu.
	byURL map[string]map[string]bool // keys by URL. Guarded by mu.
	order list.List                  // *staleResponse, the least recently used last. Guarded by mu.
}

const (
	maxVariants = 16

	// renewAfter is the minimum age at which a response is replaced by a newer one. It
	// limits the cost of storing frequent responses.
	renewAfter = time.Second

	responseCost = 512 // approximate overhead of a response in bytes
)

// staleResponse is a complete response. It is immutable.
type staleResponse struct {
	key    string
	url    string // prefix of key that identifies the URL
	status int
	header httpx.HeaderChange // the changes made by the backend to the response header
	body   []byte
	varied httpcache.Variant
	open   bool          // Cache-Control permits use for all clients
	at     time.Time     // time of receipt
	age    time.Duration // age at the time of receipt
	until  time.Time     // time until which it may be used
}

func (a *staleResponse) size() int64 {
	n := responseCost + 2*len(a.key) + cap(a.body) + a.varied.Len()
	for _, fields := range [][]httpx.Field{a.header.Set, a.header.Added} {
		for _, f := range fields {
			n += len(f.Name) + 64
			for _, value := range f.Values {
				n += len(value) + 16
			}
		}
	}
	return int64(n)
}

// limit sets the maximum size of all responses together in bytes.
func (l *staleStore) limit(most int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = most
	l.shrink()
}

// get returns the stored response for a request, or nil.
func (l *staleStore) get(key []byte, request *httpcache.Request, now time.Time) *staleResponse {
	l.mu.Lock()
	defer l.mu.Unlock()
	element := l.find(key, request)
	if element == nil {
		return nil
	}
	response := element.Value.(*staleResponse)
	if !now.Before(response.until) {
		l.remove(element)
		return nil
	}
	if personal, _ := request.PersonalTo(response.varied.Names()); personal && !response.open {
		return nil
	}
	l.order.MoveToFront(element)
	return response
}

// isNew reports whether the response for a request was stored less than renewAfter ago.
func (l *staleStore) isNew(key []byte, request *httpcache.Request, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	element := l.find(key, request)
	return element != nil && now.Sub(element.Value.(*staleResponse).at) < renewAfter
}

// find returns the variant that matches the request, or nil. The caller must hold mu.
func (l *staleStore) find(key []byte, request *httpcache.Request) *list.Element {
	for _, element := range l.byKey[string(key)] {
		if element.Value.(*staleResponse).varied.Matches(request) {
			return element
		}
	}
	return nil
}

// put stores the response to a request. It replaces the previous response.
func (l *staleStore) put(response *staleResponse, request *httpcache.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.find([]byte(response.key), request); old != nil {
		l.remove(old)
	}
	variants := l.byKey[response.key]
	if len(variants) == maxVariants {
		l.remove(variants[0])
	}
	if l.byKey == nil {
		l.byKey, l.byURL = make(map[string][]*list.Element), make(map[string]map[string]bool)
	}
	if l.byURL[response.url] == nil {
		l.byURL[response.url] = make(map[string]bool)
	}
	l.byURL[response.url][response.key] = true
	l.byKey[response.key] = append(l.byKey[response.key], l.order.PushFront(response))
	l.bytes += response.size()
	l.shrink()
}

// forget removes all responses for a URL.
func (l *staleStore) forget(url []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.byURL[string(url)] {
		for _, element := range l.byKey[key] {
			l.remove(element)
		}
	}
}

// shrink evicts responses until the limit is respected. The caller must hold mu.
func (l *staleStore) shrink() {
	for l.bytes > l.most {
		l.remove(l.order.Back())
	}
}

// remove removes a response. The caller must hold mu.
func (l *staleStore) remove(element *list.Element) {
	response := l.order.Remove(element).(*staleResponse)
	l.bytes -= response.size()
	variants := l.byKey[response.key]
	if len(variants) == 1 {
		delete(l.byKey, response.key)
		if delete(l.byURL[response.url], response.key); len(l.byURL[response.url]) == 0 {
			delete(l.byURL, response.url)
		}
		return
	}
	kept := make([]*list.Element, 0, len(variants))
	for _, other := range variants {
		if other != element {
			kept = append(kept, other)
		}
	}
	l.byKey[response.key] = kept
}

// write sends the response, a range of it, or 304, with Age and Cache-Status. failed is
// the status of the backend's response, or 0 if it did not respond.
func (a *staleResponse) write(w http.ResponseWriter, r *http.Request, now time.Time, failed int) {
	header := w.Header()
	a.header.Apply(header)
	header["Age"] = []string{strconv.FormatInt(int64((a.age+now.Sub(a.at))/time.Second), 10)}
	// Requests are forwarded first: the stored response is treated as stale (RFC 9211).
	status := "rgate-fallback; fwd=stale"
	if failed != 0 {
		status += "; fwd-status=" + strconv.Itoa(failed)
	}
	header.Add("Cache-Status", status)
	modified, _ := http.ParseTime(header.Get("Last-Modified"))
	switch {
	case a.status != http.StatusOK: // ranges and conditions apply to 200 only
	case httpcache.NotModified(r.Header, header.Get("Etag"), modified, a.dated(header)):
		for _, f := range a.header.Set {
			if strings.HasPrefix(f.Name, "Content-") && f.Name != "Content-Location" { // describes the body
				delete(header, f.Name)
			}
		}
		w.WriteHeader(http.StatusNotModified)
		return
	case httpx.WantsRange(r):
		delete(header, "Content-Length")
		httpx.ServeRange(w, r, true, modified, a.body)
		return
	}
	header["Content-Length"] = []string{strconv.Itoa(len(a.body))}
	w.WriteHeader(a.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(a.body) // fails if the client has disconnected
	}
}

// dated returns the time at which the response was generated: its Date, or an estimate.
func (a *staleResponse) dated(header http.Header) time.Time {
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		return date
	}
	return a.at.Add(-a.age)
}

// storable reports whether a response to a GET request may be stored, and until when. The
// time is limited by most, and by the response's lifetime if its directives forbid stale
// use. open reports whether Cache-Control permits use for all clients.
func storable(response *httpcache.Response, q *httpcache.Request, most time.Duration) (until time.Time, open, ok bool) {
	switch response.Status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusMultipleChoices,
		http.StatusMovedPermanently, http.StatusPermanentRedirect:
	default:
		return until, false, false
	}
	header := response.Header
	d := httpcache.ParseDirectives(header["Cache-Control"])
	open = d.ForAll()
	if d.NoCache || !sharing.ForAll(q, header, &d) || sharing.IsEndless(header) || len(header["Trailer"]) > 0 {
		return until, false, false
	}
	if personal, _ := q.PersonalTo(header["Vary"]); personal && !open {
		return until, false, false
	}
	if d.MustRevalidate || d.ProxyRevalidate || d.SMaxAge.Given() {
		lifetime, _ := response.Lifetime(&d)
		most = min(most, lifetime-response.Age())
	}
	return response.Received.Add(most), open, most > 0
}
