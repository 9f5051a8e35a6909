package cache

import (
	"net/http"
	"strconv"
	"time"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/traffic/httpcache"
)

// cacheStatus holds the parameters of a Cache-Status member (RFC 9211) for a stored
// response.
type cacheStatus struct {
	hit    bool              // the request was not forwarded
	why    httpcache.Forward // the reason for forwarding the request; unused for hits
	status int               // the backend's status; 0 if it did not respond
	stored bool              // the backend's response was stored
	detail string
}

// replay sends a stored response.
func (p *Cache) replay(w http.ResponseWriter, r *http.Request, q httpcache.Request, e *httpcache.Entry, now time.Time, how cacheStatus) {
	h := w.Header()
	whole := e.Status == http.StatusOK
	notModified := whole && q.Conditional && httpcache.NotModified(r.Header, e.ETag, e.LastModified, e.Date)
	room := e.WriteHeader(h, notModified, 3)
	set := func(name, value string) {
		room = append(room, value)
		h[name] = room[len(room)-1 : len(room) : len(room)]
	}
	set("Age", strconv.FormatInt(int64(e.Age(now)/time.Second), 10))
	if status := h["Cache-Status"]; p.hasStatus && len(status) > 0 {
		h["Cache-Status"] = append(status, how.text(e, now))
	} else if p.hasStatus {
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
		_, _ = w.Write(e.Body) // fails if the client has disconnected
	}
}

// text returns the member for Cache-Status.
func (h *cacheStatus) text(e *httpcache.Entry, now time.Time) string {
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

// forwarded returns the Cache-Status member for a response of the backend. field is the
// request field that prevents storing it, or "".
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

// addStatus adds a member to Cache-Status.
func (p *Cache) addStatus(w http.ResponseWriter, member string) {
	if p.hasStatus {
		h := w.Header()
		h["Cache-Status"] = append(h["Cache-Status"], member)
	}
}
