package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Freshness is how long a response may be used (RFC 9111, section 4.2).
type Freshness struct {
	// Born is when the age of the response was zero.
	Born time.Time

	// Lifetime is the age up to which the response is fresh.
	Lifetime time.Duration

	// How long the response may be used when stale: while it is validated, and if the
	// origin fails.
	WhileRevalidate, IfError time.Duration

	// Validate is whether each use requires a validation.
	Validate bool

	// Strict is whether the max-stale of clients is ignored.
	Strict bool

	// Implied is whether the options alone, not the response, allow storing it.
	Implied bool

	// Negotiated is whether the response has neither a lifetime nor Vary. It is then used
	// for requests that are equal in all negotiated fields.
	Negotiated bool

	// OwnWhile and OwnIf are whether the options alone allow WhileRevalidate and IfError,
	// for requests that are not personal.
	OwnWhile, OwnIf bool
}

// Age returns the age of the response.
func (f *Freshness) Age(now time.Time) time.Duration { return max(0, now.Sub(f.Born)) }

// Left returns the remaining time of freshness, negative for a stale response.
func (f *Freshness) Left(now time.Time) time.Duration { return f.Lifetime - f.Age(now) }

// UsableOnError reports whether the response may be used if the origin fails.
func (f *Freshness) UsableOnError(q *Request, now time.Time) bool {
	if f.Validate || f.OwnIf && q.Personal {
		return false
	}
	return -f.Left(now) < f.IfError
}

// Options are the options of a cache.
type Options struct {
	// TTL is the lifetime of responses without one. 0 does not store them.
	TTL time.Duration

	// Unnegotiated is whether negotiated fields count only if Vary names them.
	Unnegotiated bool

	// TTLByStatus is the TTL by status, or by class (its first digit).
	TTLByStatus map[int]time.Duration

	// How long stale responses without these directives may be used.
	StaleWhileRevalidate, StaleIfError time.Duration
}

// Response is the status and the header of a response.
type Response struct {
	Status              int
	Header              http.Header // as the origin sent it
	Requested, Received time.Time   // when the request was sent and the header received
}

// mostForErrors bounds the lifetime of errors, which is a tenth of that of other responses.
const mostForErrors = 10 * time.Second

// ttl returns the lifetime of responses of a status without one. ok is false if they may
// not be stored.
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

// MayHaveTTL reports whether TTLByStatus may have a status or a class.
func MayHaveTTL(status int) bool {
	switch status {
	case http.StatusPartialContent, http.StatusNotModified, http.StatusUnauthorized, http.StatusProxyAuthRequired,
		http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return true
}

// Judge returns whether a shared cache may store the response to a GET request, and how long
// it may be used (RFC 9111, section 3). If only a field of the request prevents it, field is
// its name.
func (o *Options) Judge(q *Request, r *Response) (f Freshness, ok bool, field string) {
	h := r.Header
	d := ParseDirectives(h["Cache-Control"])
	if !mayStore(q, r.Status, h, &d) {
		return f, false, ""
	}
	f = Freshness{
		Born:     r.Received.Add(-r.Age()),
		Validate: d.NoCache && d.NoCacheFields == nil || isHTTP10NoCache(h),
		Strict:   d.NoCache && d.NoCacheFields == nil || d.MustRevalidate || d.ProxyRevalidate || d.SMaxAge.Given(),
	}
	lifetime, explicit := r.Lifetime(&d)
	ttl, may := o.ttl(r.Status, d.Public)
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
	useful := f.Left(r.Received) > 0 && !f.Validate || f.WhileRevalidate > 0 || f.IfError > 0 || hasValidator(h)
	return f, useful, ""
}

// ForAll reports whether a response may be used for all clients, whatever its request had.
func (d *Directives) ForAll() bool { return d.Public || d.SMaxAge.Given() }

// blocks reports whether a response that is not ForAll must not be stored because of the
// identity or a field of its request.
func (d *Directives) blocks(q *Request, vary []string, implied bool) (blocked bool, field string) {
	authorized := d.MustRevalidate && !implied // RFC 9111, section 3.5
	field = q.blame(vary, implied, authorized)
	return field != "" || q.Identified && !authorized, field
}

// Refuses reports whether a response may not be stored, given its whole header, including
// fields of outer handlers. If only a field of the request prevents it, field is its name.
func (o *Options) Refuses(q *Request, status int, h http.Header) (refuses bool, field string) {
	control := h["Cache-Control"]
	explicit := h["Expires"] != nil
	d := ParseDirectives(control)
	if ttl, may := o.ttl(status, d.Public); control == nil && !explicit && h["Pragma"] == nil && (ttl == 0 || !may) {
		return true, "" // no lifetime
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

// staleFor returns how long a response may be used when stale. s-maxage forbids it, unless
// the response has the directive.
func staleFor(directive Seconds, otherwise time.Duration, sMaxAge Seconds) time.Duration {
	switch {
	case directive.Given():
		return directive.Duration()
	case sMaxAge.Given():
		return 0
	}
	return otherwise
}

// mayStore reports whether nothing forbids storing a response.
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

// isStream reports whether a response is a stream of events.
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

// isHTTP10NoCache reports whether a response without Cache-Control has Pragma: no-cache.
func isHTTP10NoCache(h http.Header) bool {
	return h["Cache-Control"] == nil && strings.EqualFold(h.Get("Pragma"), "no-cache")
}

// Lifetime returns the lifetime that a response with these directives has explicitly.
func (r *Response) Lifetime(d *Directives) (lifetime time.Duration, explicit bool) {
	switch {
	case d.SMaxAge.Given():
		return d.SMaxAge.Duration(), true
	case d.MaxAge.Given():
		return d.MaxAge.Duration(), true
	case r.Header["Expires"] != nil:
		expires, err := http.ParseTime(r.Header.Get("Expires"))
		if err != nil { // in the past, section 5.3
			return 0, true
		}
		return min(max(0, expires.Sub(r.date())), mostSeconds.Duration()), true
	}
	return 0, false
}

// date returns the field Date, or when the response was received.
func (r *Response) date() time.Time {
	if date, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		return date
	}
	return r.Received
}

// Age returns the age of a response when it is received (RFC 9111, section 4.2.3).
func (r *Response) Age() time.Duration {
	apparent := r.Received.Truncate(time.Second).Sub(r.date())
	corrected := r.Received.Sub(r.Requested)
	if lines := r.Header["Age"]; len(lines) > 0 {
		first, _, _ := strings.Cut(lines[0], ",")
		if n, err := strconv.ParseUint(strings.TrimSpace(first), 10, 64); err == nil || n > 0 {
			corrected += Seconds(min(n, uint64(mostSeconds))).Duration()
		}
	}
	return max(0, apparent, corrected)
}

// heuristic reports whether responses of a status may be stored without a lifetime
// (RFC 9110, section 15.1).
func heuristic(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// understood reports whether the cache implements the requirements of a status.
func understood(status int) bool {
	switch status {
	case 302, 303, 307, 400, 401, 403, 451, 500, 502, 503, 504:
		return true
	}
	return heuristic(status)
}
