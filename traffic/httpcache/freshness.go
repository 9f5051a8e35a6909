package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Freshness is how long an answer may be used (RFC 9111, section 4.2).
type Freshness struct {
	// Born is when the age of the answer was zero.
	Born time.Time

	// Lifetime is how old it may become and still be fresh.
	Lifetime time.Duration

	// For how long it may be used once it is stale: while it is validated, and if
	// the origin fails.
	WhileRevalidate, IfError time.Duration

	// Validate is whether it must always be validated.
	Validate bool

	// Strict is whether it may not be used once it is stale just because a client
	// would take it.
	Strict bool

	// Implied is whether it says nothing about being stored, and is so because the
	// cache was told to store such answers.
	Implied bool

	// Negotiated is whether the response says neither how long it is fresh nor what it
	// depends on, so that it is for requests that are equal in all negotiated fields.
	Negotiated bool

	// OwnWhile and OwnIf are whether the operator alone allows WhileRevalidate and
	// IfError, for requests that are not personal.
	OwnWhile, OwnIf bool
}

// Age is how old the answer is.
func (f *Freshness) Age(now time.Time) time.Duration { return max(0, now.Sub(f.Born)) }

// Left is for how long the answer is still fresh; it is negative for a stale one.
func (f *Freshness) Left(now time.Time) time.Duration { return f.Lifetime - f.Age(now) }

// UsableOnError reports whether the answer may be used because the origin fails.
func (f *Freshness) UsableOnError(q *Request, now time.Time) bool {
	if f.Validate || f.OwnIf && q.Personal {
		return false
	}
	return -f.Left(now) < f.IfError
}

// Options are what the operator of a cache decides.
type Options struct {
	// TTL is how long answers are fresh that say nothing about it. 0: not at all.
	TTL time.Duration

	// Unnegotiated is whether what the client negotiates is in Vary alone.
	Unnegotiated bool

	// TTLByStatus has those of some statuses, and of classes by their first digit.
	TTLByStatus map[int]time.Duration

	// For how long answers that say nothing about it may be used once they are stale.
	StaleWhileRevalidate, StaleIfError time.Duration
}

// Answer is what a cache has to know of an answer before its body comes.
type Answer struct {
	Status              int
	Header              http.Header // as the origin sent it
	Requested, Received time.Time   // when the request was sent and the header had come
}

// Errors are kept for a tenth of the time of other responses, and no longer than this.
const mostForErrors = 10 * time.Second

// ttl returns how long responses of a status are fresh that say nothing about it. ok is
// false if they may not be stored.
func (o *Options) ttl(status int, public bool) (ttl time.Duration, ok bool) {
	if ttl, ok := o.TTLByStatus[status]; ok {
		return ttl, true
	}
	if !heuristic(status) && !public {
		return 0, false
	}
	if ttl, ok := o.TTLByStatus[status/100]; ok {
		return ttl, true
	}
	if status >= 400 {
		return min(o.TTL/10, mostForErrors), true
	}
	return o.TTL, true
}

// MayHaveTTL reports whether responses of a status, or of a class, may be stored because
// the operator says so.
func MayHaveTTL(status int) bool {
	switch status {
	case http.StatusPartialContent, http.StatusNotModified, http.StatusUnauthorized, http.StatusProxyAuthRequired,
		http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return true
}

// Judge says whether a shared cache may store the answer to a GET request, and how
// long it may be used (RFC 9111, section 3). If a field of the request alone is why it
// may not, it is in field.
func (o *Options) Judge(q *Request, a *Answer) (f Freshness, ok bool, field string) {
	h := a.Header
	d := ParseDirectives(h["Cache-Control"])
	if !mayStore(q, a.Status, h, &d) {
		return f, false, ""
	}
	f = Freshness{
		Born:     a.Received.Add(-a.Age()),
		Validate: d.NoCache && d.NoCacheFields == nil || saysNoCache(h),
		Strict:   d.NoCache && d.NoCacheFields == nil || d.MustRevalidate || d.ProxyRevalidate || d.SMaxAge.Given(),
	}
	lifetime, explicit := a.Lifetime(&d)
	ttl, may := o.ttl(a.Status, d.Public)
	switch {
	case explicit:
		f.Lifetime = lifetime
	case !may:
		return f, false, ""
	case f.Validate:
	default:
		f.Lifetime = ttl
		f.Implied = !d.Public
		f.Negotiated = h["Vary"] == nil && !o.Unnegotiated
	}
	if f.Implied && ttl == 0 {
		return f, false, ""
	}
	if !f.Validate && !d.MustRevalidate && !d.ProxyRevalidate {
		f.WhileRevalidate = staleFor(d.StaleWhileRevalidate, o.StaleWhileRevalidate, d.SMaxAge)
		f.IfError = staleFor(d.StaleIfError, o.StaleIfError, d.SMaxAge)
	}
	if !d.ForAll() {
		if blocked, field := d.blocks(q, h["Vary"], f.Implied); blocked {
			return f, false, field
		}
		f.OwnWhile, f.OwnIf = !d.StaleWhileRevalidate.Given(), !d.StaleIfError.Given()
		if personal, _ := q.PersonalTo(h["Vary"]); personal {
			f.WhileRevalidate, f.IfError = d.StaleWhileRevalidate.Duration(), d.StaleIfError.Duration()
		}
	}
	useful := f.Left(a.Received) > 0 && !f.Validate || f.WhileRevalidate > 0 || f.IfError > 0 || hasValidator(h)
	return f, useful, ""
}

// ForAll reports whether a response may be given to others than the one who asked for
// it, whatever that request was.
func (d *Directives) ForAll() bool { return d.Public || d.SMaxAge.Given() }

// blocks reports whether a response that does not say that it is for all must not be
// stored because of who asked for it, and because of which field.
func (d *Directives) blocks(q *Request, vary []string, implied bool) (blocked bool, field string) {
	authorized := d.MustRevalidate && !implied // RFC 9111, section 3.5
	field = q.blame(vary, implied, authorized)
	return field != "" || q.Identified && !authorized, field
}

// Refuses reports whether it is plain that an answer may not be stored, given all of
// its header, also what others have set. If a field of the request alone is why, it is
// in field.
func (o *Options) Refuses(q *Request, status int, h http.Header) (refuses bool, field string) {
	control := h["Cache-Control"]
	explicit := h["Expires"] != nil
	d := ParseDirectives(control)
	if ttl, may := o.ttl(status, d.Public); control == nil && !explicit && h["Pragma"] == nil && (ttl == 0 || !may) {
		return true, "" // it says nothing
	}
	if !mayStore(q, status, h, &d) {
		return true, ""
	}
	if d.ForAll() {
		return false, ""
	}
	explicit = explicit || d.MaxAge.Given()
	return d.blocks(q, h["Vary"], !explicit)
}

// staleFor is for how long an answer may be used once it is stale. What s-maxage
// forbids, only the answer itself can allow again.
func staleFor(said Seconds, otherwise time.Duration, sMaxAge Seconds) time.Duration {
	switch {
	case said.Given():
		return said.Duration()
	case sMaxAge.Given():
		return 0
	}
	return otherwise
}

// mayStore reports whether nothing forbids to store an answer.
func mayStore(q *Request, status int, h http.Header, d *Directives) bool {
	switch {
	case q.NoStore, status < 200, status == http.StatusPartialContent, status == http.StatusNotModified,
		d.MustUnderstand && !understood(status),
		d.NoStore && !d.MustUnderstand,
		d.Private && d.PrivateFields == nil,
		q.VariesUnseen(h["Vary"]), isStream(h), h["Trailer"] != nil:
		return false
	case h["Set-Cookie"] != nil && !d.Public && !d.SMaxAge.Given() && !named(d.PrivateFields, "Set-Cookie") && !named(d.NoCacheFields, "Set-Cookie"):
		return false
	}
	return true
}

// isStream reports whether an answer is a stream of events.
func isStream(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

func named(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func hasValidator(h http.Header) bool { return h.Get("Etag") != "" || h.Get("Last-Modified") != "" }

// saysNoCache reports whether an answer of a server from before HTTP/1.1 says that it
// must not be given again.
func saysNoCache(h http.Header) bool {
	return h["Cache-Control"] == nil && strings.EqualFold(h.Get("Pragma"), "no-cache")
}

// Lifetime is how long an answer with these directives says that it is fresh.
func (a *Answer) Lifetime(d *Directives) (lifetime time.Duration, explicit bool) {
	switch {
	case d.SMaxAge.Given():
		return d.SMaxAge.Duration(), true
	case d.MaxAge.Given():
		return d.MaxAge.Duration(), true
	case a.Header["Expires"] != nil:
		expires, err := http.ParseTime(a.Header.Get("Expires"))
		if err != nil { // in the past, section 5.3
			return 0, true
		}
		return min(max(0, expires.Sub(a.date())), mostSeconds.Duration()), true
	}
	return 0, false
}

// date is when an answer was made, as it says itself.
func (a *Answer) date() time.Time {
	if date, err := http.ParseTime(a.Header.Get("Date")); err == nil {
		return date
	}
	return a.Received
}

// Age is how old an answer is when it comes (RFC 9111, section 4.2.3).
func (a *Answer) Age() time.Duration {
	apparent := a.Received.Truncate(time.Second).Sub(a.date())
	corrected := a.Received.Sub(a.Requested)
	if lines := a.Header["Age"]; len(lines) > 0 {
		first, _, _ := strings.Cut(lines[0], ",")
		if n, err := strconv.ParseUint(strings.TrimSpace(first), 10, 64); err == nil || n > 0 {
			corrected += Seconds(min(n, uint64(mostSeconds))).Duration()
		}
	}
	return max(0, apparent, corrected)
}

// heuristic reports whether answers of a status may be stored although they do not
// say for how long (RFC 9110, section 15.1).
func heuristic(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// understood reports whether it is known what a status means for a cache.
func understood(status int) bool {
	switch status {
	case 302, 303, 307, 400, 401, 403, 451, 500, 502, 503, 504:
		return true
	}
	return heuristic(status)
}
