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

// lastGood keeps the last good answers of a backend, by what was asked for, in
// bounded memory: those that were kept or used longest ago make room.
type lastGood struct {
	mu    sync.Mutex
	most  int64                      // bytes. Guarded by mu.
	bytes int64                      // Guarded by mu.
	byKey map[string][]*list.Element // variants by Vary, the newest last. Guarded by mu.
	byURL map[string]map[string]bool // the keys of each URL. Guarded by mu.
	order list.List                  // of *goodAnswer, the next to go last. Guarded by mu.
}

const (
	maxVariants = 16

	// An answer is kept anew no more often than that, so that hardly any request has
	// to pay for it.
	renewAfter = time.Second

	goodCost = 512 // about what an answer takes besides its texts
)

// goodAnswer is a whole answer. It does not change.
type goodAnswer struct {
	key    string
	url    string // the beginning of the key
	status int
	header httpx.HeaderChange // what the backend has made of the header
	body   []byte
	varied httpcache.Variant
	open   bool          // it says that it is for all
	at     time.Time     // when it came
	age    time.Duration // how old it was then
	until  time.Time     // how long it may be used
}

func (a *goodAnswer) size() int64 {
	n := goodCost + 2*len(a.key) + cap(a.body) + a.varied.Len()
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

// limit sets how many bytes all answers may take.
func (l *lastGood) limit(most int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = most
	l.shrink()
}

// get returns the answer to a request, nil if there is none that may be used.
func (l *lastGood) get(key []byte, request *httpcache.Request, now time.Time) *goodAnswer {
	l.mu.Lock()
	defer l.mu.Unlock()
	element := l.find(key, request)
	if element == nil {
		return nil
	}
	answer := element.Value.(*goodAnswer)
	if !now.Before(answer.until) {
		l.remove(element)
		return nil
	}
	if personal, _ := request.PersonalTo(answer.varied.Names()); personal && !answer.open {
		return nil
	}
	l.order.MoveToFront(element)
	return answer
}

// isNew reports whether the answer to a request need not be kept anew.
func (l *lastGood) isNew(key []byte, request *httpcache.Request, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	element := l.find(key, request)
	return element != nil && now.Sub(element.Value.(*goodAnswer).at) < renewAfter
}

// find must be called with mu held.
func (l *lastGood) find(key []byte, request *httpcache.Request) *list.Element {
	for _, element := range l.byKey[string(key)] {
		if element.Value.(*goodAnswer).varied.Matches(request) {
			return element
		}
	}
	return nil
}

// put keeps an answer to a request, in place of the one before.
func (l *lastGood) put(answer *goodAnswer, request *httpcache.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old := l.find([]byte(answer.key), request); old != nil {
		l.remove(old)
	}
	variants := l.byKey[answer.key]
	if len(variants) == maxVariants {
		l.remove(variants[0])
	}
	if l.byKey == nil {
		l.byKey, l.byURL = make(map[string][]*list.Element), make(map[string]map[string]bool)
	}
	if l.byURL[answer.url] == nil {
		l.byURL[answer.url] = make(map[string]bool)
	}
	l.byURL[answer.url][answer.key] = true
	l.byKey[answer.key] = append(l.byKey[answer.key], l.order.PushFront(answer))
	l.bytes += answer.size()
	l.shrink()
}

// forget removes all answers of a URL.
func (l *lastGood) forget(url []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.byURL[string(url)] {
		for _, element := range l.byKey[key] {
			l.remove(element)
		}
	}
}

// shrink must be called with mu held.
func (l *lastGood) shrink() {
	for l.bytes > l.most {
		l.remove(l.order.Back())
	}
}

// remove must be called with mu held.
func (l *lastGood) remove(element *list.Element) {
	answer := l.order.Remove(element).(*goodAnswer)
	l.bytes -= answer.size()
	variants := l.byKey[answer.key]
	if len(variants) == 1 {
		delete(l.byKey, answer.key)
		if delete(l.byURL[answer.url], answer.key); len(l.byURL[answer.url]) == 0 {
			delete(l.byURL, answer.url)
		}
		return
	}
	kept := make([]*list.Element, 0, len(variants))
	for _, other := range variants {
		if other != element {
			kept = append(kept, other)
		}
	}
	l.byKey[answer.key] = kept
}

// write sends the answer, or the part of it that is asked for, or that the client has it
// already, and says that it is an old one. failed is the status that the backend has
// answered with, 0 if it has not.
func (a *goodAnswer) write(w http.ResponseWriter, r *http.Request, now time.Time, failed int) {
	header := w.Header()
	a.header.Apply(header)
	header["Age"] = []string{strconv.FormatInt(int64((a.age+now.Sub(a.at))/time.Second), 10)}
	// RFC 9211: the backend was asked, for what is here is old.
	status := "rgate-fallback; fwd=stale"
	if failed != 0 {
		status += "; fwd-status=" + strconv.Itoa(failed)
	}
	header.Add("Cache-Status", status)
	modified, _ := http.ParseTime(header.Get("Last-Modified"))
	switch {
	case a.status != http.StatusOK: // of which there are no parts
	case httpcache.NotModified(r.Header, header.Get("Etag"), modified, a.dated(header)):
		for _, f := range a.header.Set {
			if strings.HasPrefix(f.Name, "Content-") && f.Name != "Content-Location" { // they describe the body
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
		_, _ = w.Write(a.body) // the client left
	}
}

// dated is when the answer was made, given its header.
func (a *goodAnswer) dated(header http.Header) time.Time {
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		return date
	}
	return a.at.Add(-a.age)
}

// keepable reports whether an answer to a GET request may be kept, and until when:
// as long as asked for, but no longer than it is fresh if it says that it must not be
// used after that; open is whether it says that it is for all.
func keepable(answer *httpcache.Answer, q *httpcache.Request, most time.Duration) (until time.Time, open, ok bool) {
	switch answer.Status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusMultipleChoices,
		http.StatusMovedPermanently, http.StatusPermanentRedirect:
	default:
		return until, false, false
	}
	header := answer.Header
	d := httpcache.ParseDirectives(header["Cache-Control"])
	open = d.ForAll()
	if d.NoCache || !sharing.ForAll(q, header, &d) || sharing.IsEndless(header) || len(header["Trailer"]) > 0 {
		return until, false, false
	}
	if personal, _ := q.PersonalTo(header["Vary"]); personal && !open {
		return until, false, false
	}
	if d.MustRevalidate || d.ProxyRevalidate || d.SMaxAge.Given() {
		lifetime, _ := answer.Lifetime(&d)
		most = min(most, lifetime-answer.Age())
	}
	return answer.Received.Add(most), open, most > 0
}
