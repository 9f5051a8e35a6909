package traffic

import (
	"container/list"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rgate/rgate/traffic/httpcache"
)

// lastGood keeps the last good answers of a backend, by what was asked for, in
// bounded memory: those that were kept or used longest ago make room.
type lastGood struct {
	mu    sync.Mutex
	most  int64                      // bytes. Guarded by mu.
	bytes int64                      // Guarded by mu.
	byKey map[string][]*list.Element // variants by Vary, the newest last. Guarded by mu.
	order list.List                  // of *goodAnswer, the next to go last. Guarded by mu.
}

const (
	maxVariants = 8

	// An answer is kept anew no more often than that, so that hardly any request has
	// to pay for it.
	renewAfter = time.Second

	goodCost = 512 // about what an answer takes besides its texts
)

// goodAnswer is a whole answer. It does not change.
type goodAnswer struct {
	key    string
	status int
	header headerChange // what the backend has made of the header
	body   []byte
	varied varied
	at     time.Time     // when it came
	age    time.Duration // how old it was then
	until  time.Time     // how long it may be used
}

func (a *goodAnswer) size() int64 {
	n := goodCost + len(a.key) + cap(a.body)
	for _, fields := range [][]field{a.header.set, a.header.added, a.varied} {
		for _, f := range fields {
			n += len(f.name) + 64
			for _, value := range f.values {
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
func (l *lastGood) get(key []byte, request http.Header, now time.Time) *goodAnswer {
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
	l.order.MoveToFront(element)
	return answer
}

// isNew reports whether the answer to a request need not be kept anew.
func (l *lastGood) isNew(key []byte, request http.Header, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	element := l.find(key, request)
	return element != nil && now.Sub(element.Value.(*goodAnswer).at) < renewAfter
}

// find must be called with mu held.
func (l *lastGood) find(key []byte, request http.Header) *list.Element {
	for _, element := range l.byKey[string(key)] {
		if element.Value.(*goodAnswer).varied.match(request) {
			return element
		}
	}
	return nil
}

// put keeps an answer to a request, in place of the one before.
func (l *lastGood) put(answer *goodAnswer, request http.Header) {
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
		l.byKey = make(map[string][]*list.Element)
	}
	l.byKey[answer.key] = append(l.byKey[answer.key], l.order.PushFront(answer))
	l.bytes += answer.size()
	l.shrink()
}

// forget removes all answers to what was asked for.
func (l *lastGood) forget(key []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for variants := l.byKey[string(key)]; len(variants) > 0; variants = l.byKey[string(key)] {
		l.remove(variants[0])
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
	a.header.apply(header)
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
		for _, f := range a.header.set {
			if strings.HasPrefix(f.name, "Content-") && f.name != "Content-Location" { // they describe the body
				delete(header, f.name)
			}
		}
		w.WriteHeader(http.StatusNotModified)
		return
	case wantsPart(r):
		delete(header, "Content-Length")
		serveRange(w, r, true, modified, a.body)
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
// used after that. personal tells that somebody in particular has asked.
func keepable(answer *httpcache.Answer, personal bool, most time.Duration) (until time.Time, ok bool) {
	switch answer.Status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusMultipleChoices,
		http.StatusMovedPermanently, http.StatusPermanentRedirect:
	default:
		return until, false
	}
	header := answer.Header
	d := httpcache.ParseDirectives(header["Cache-Control"])
	if d.NoCache || personal && !d.Public || !forEveryone(header, &d) || endless(header) || len(header["Trailer"]) > 0 {
		return until, false
	}
	if d.MustRevalidate || d.ProxyRevalidate || d.SMaxAge.Given() {
		lifetime, _ := answer.Lifetime(&d)
		most = min(most, lifetime-answer.Age())
	}
	return answer.Received.Add(most), most > 0
}

// personalWords are in the names of fields that have credentials, or may have some.
var personalWords = [...]string{
	"Auth", "auth", "Cookie", "Token", "token", "Key", "key", "User", "user", "Consumer", "Session", "session",
	"Account", "Tenant", "Secret", "secret", "Signature", "Identity", "Credential", "Csrf",
}

// isPersonal reports whether a request seems to say who sends it.
func isPersonal(header http.Header) bool {
	for name := range header {
		if roleOf(name) == incidental || strings.HasPrefix(name, "Sec-") {
			continue
		}
		for _, word := range personalWords {
			if strings.Contains(name, word) {
				return true
			}
		}
	}
	return false
}
