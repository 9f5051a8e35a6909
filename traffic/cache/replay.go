package cache

import (
	"net/http"
	"strconv"
	"time"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/traffic/httpcache"
)

// provenance is how it came about that a stored answer is given.
type provenance struct {
	hit    bool              // the backend was not asked
	why    httpcache.Forward // it was asked, if it was
	status int               // that it answered with, 0 if it did not
	stored bool              // what it said was stored
	detail string
}

// replay answers a request with a stored answer.
func (p *Cache) replay(w http.ResponseWriter, r *http.Request, q httpcache.Request, e *httpcache.Entry, now time.Time, how provenance) {
	h := w.Header()
	whole := e.Status == http.StatusOK
	notModified := whole && q.Conditional && httpcache.NotModified(r.Header, e.ETag, e.LastModified, e.Date)
	room := e.WriteHeader(h, notModified, 3)
	set := func(name, value string) {
		room = append(room, value)
		h[name] = room[len(room)-1 : len(room) : len(room)]
	}
	set("Age", strconv.FormatInt(int64(e.Age(now)/time.Second), 10))
	if status := h["Cache-Status"]; p.tellsStatus && len(status) > 0 {
		h["Cache-Status"] = append(status, how.text(e, now))
	} else if p.tellsStatus {
		set("Cache-Status", how.text(e, now))
	}
	switch {
	case notModified:
		w.WriteHeader(http.StatusNotModified)
		return
	case whole && q.Range && httpx.WantsRange(r):
		httpx.ServeRange(w, r, q.Conditional, e.LastModified, e.Body)
		return
	}
	if e.Status != http.StatusNoContent {
		set("Content-Length", strconv.Itoa(len(e.Body)))
	}
	w.WriteHeader(e.Status)
	if !q.Head {
		_, _ = w.Write(e.Body) // the client left
	}
}

// text is a member of the field Cache-Status (RFC 9211).
func (h *provenance) text(e *httpcache.Entry, now time.Time) string {
	var room [96]byte
	text := append(room[:0], "rgate"...)
	if h.hit {
		text = append(text, "; hit; ttl="...)
		text = strconv.AppendInt(text, int64(e.Left(now)/time.Second), 10)
	} else {
		text = append(text, "; fwd="...)
		text = append(text, h.why...)
		if h.status != 0 {
			text = append(text, "; fwd-status="...)
			text = strconv.AppendInt(text, int64(h.status), 10)
		}
		if h.stored {
			text = append(text, "; stored"...)
		}
	}
	if h.detail != "" {
		text = append(text, "; detail="...)
		text = append(text, h.detail...)
	}
	return string(text)
}

// forwarded is the member for a response of the backend. field is the one because of which
// it is not stored, if there is one.
func forwarded(why httpcache.Forward, stored bool, field string) string {
	switch {
	case stored:
		return "rgate; fwd=" + string(why) + "; stored"
	case field != "":
		var room [96]byte
		text := append(room[:0], `rgate; fwd=bypass; detail="field `...)
		for _, c := range []byte(field) {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			text = append(text, c)
		}
		return string(append(text, '"'))
	case why == httpcache.Method:
		return "rgate; fwd=method"
	case why == httpcache.Bypassed:
		return "rgate; fwd=bypass"
	}
	return "rgate; fwd=" + string(why)
}

// tell says in an answer what became of its request.
func (p *Cache) tell(w http.ResponseWriter, member string) {
	if p.tellsStatus {
		h := w.Header()
		h["Cache-Status"] = append(h["Cache-Status"], member)
	}
}
