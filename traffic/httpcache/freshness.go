package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Freshness holds the time limits for the use of a response (RFC 9111, section 4.2).
type Freshness struct {
	// Born is the time at which the response was generated: its time of receipt minus its
	// age.
	Born time.Time

	// Lifetime is the age up to which the response is fresh.
	Lifetime time.Duration

	// WhileRevalidate is the time for which the stale response may be served while it is
	// validated. IfError is the time for which it may be served if the origin fails.
	WhileRevalidate, IfError time.Duration

	// Validate requires a validation before each use.
	Validate bool

	// Strict ignores max-stale in requests.
	Strict bool

	// Implied reports whether storing is allowed by the options only, not by the
	// response.
	Implied bool

	// Negotiated reports whether the response has neither a lifetime nor Vary. It then
	// matches only requests that are equal in all negotiated fields.
	Negotiated bool

	// OwnWhile and OwnIf report whether WhileRevalidate and IfError come from the
	// options. They then do not apply to personal requests.
	OwnWhile, OwnIf bool
}

// Age returns the age of the response.
func (f *Freshness) Age(now time.Time) time.Duration { return max(0, now.Sub(f.Born)) }

// Left returns the remaining lifetime. It is negative for a stale response.
func (f *Freshness) Left(now time.Time) time.Duration { return f.Lifetime - f.Age(now) }

// UsableOnError reports whether the response may be served if the origin fails.
func (f *Freshness) UsableOnError(q *Request, now time.Time) bool {
	if f.Validate || f.OwnIf && q.Personal {
		return false
	}
	return -f.Left(now) < f.IfError
}

// Options holds the options of a cache.
type Options struct {
	// TTL is the lifetime of responses without an explicit lifetime. With 0, they are
	// stored only if Cache-Control contains public or no-cache.
	TTL time.Duration

	// Unnegotiated ignores negotiated fields that are not named in Vary.
	Unnegotiated bool

	// TTLByStatus maps a status, or the first digit of a class, to a TTL.
	TTLByStatus map[int]time.Duration

	// StaleWhileRevalidate and StaleIfError apply to responses without these directives.
	StaleWhileRevalidate, StaleIfError time.Duration
}

// Response holds the status and the header of a response.
type Response struct {
	Status              int
	Header              http.Header // the header sent by the origin
	Requested, Received time.Time   // times at which the request was sent and the header was received
}

// mostForErrors limits the default lifetime of error responses, a tenth of the TTL.
const mostForErrors = 10 * time.Second

// ttl returns the lifetime of responses without an explicit lifetime. ok is false if
// responses with the status must not be stored.
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

// MayHaveTTL reports whether TTLByStatus accepts a status or class.
func MayHaveTTL(status int) bool {
	switch status {
	case http.StatusPartialContent, http.StatusNotModified, http.StatusUnauthorized, http.StatusProxyAuthRequired,
		http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return true
}

// Judge reports whether a shared cache may store the response to a GET request (RFC 9111,
// section 3), and returns its freshness. If only a field of the request prevents storing,
// field is its name.
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

// ForAll reports whether a response may be served to all clients, even if its request had
// credentials.
func (d *Directives) ForAll() bool { return d.Public || d.SMaxAge.Given() }

// blocks reports whether the request's identity or fields prevent storing a response that
// is not ForAll.
func (d *Directives) blocks(q *Request, vary []string, implied bool) (blocked bool, field string) {
	authorized := d.MustRevalidate && !implied // RFC 9111, section 3.5
	field = q.blame(vary, implied, authorized)
	return field != "" || q.Identified && !authorized, field
}

// Refuses reports whether a response must not be stored. h is the whole header, including
// fields of outer handlers. If only a field of the request prevents storing, field is its
// name.
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

// staleFor returns the time for which a response may be served stale. Without the
// directive, s-maxage forbids stale use.
func staleFor(directive Seconds, otherwise time.Duration, sMaxAge Seconds) time.Duration {
	switch {
	case directive.Given():
		return directive.Duration()
	case sMaxAge.Given():
		return 0
	}
	return otherwise
}

// mayStore reports whether no status, directive or field forbids storing the response.
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

// isStream reports whether a response is an event stream.
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

// isHTTP10NoCache reports whether a response has Pragma: no-cache and no Cache-Control.
func isHTTP10NoCache(h http.Header) bool {
	return h["Cache-Control"] == nil && strings.EqualFold(h.Get("Pragma"), "no-cache")
}

// Lifetime returns the explicit lifetime of a response with these directives. explicit is
// false if it has none.
func (r *Response) Lifetime(d *Directives) (lifetime time.Duration, explicit bool) {
	switch {
	case d.SMaxAge.Given():
		return d.SMaxAge.Duration(), true
	case d.MaxAge.Given():
		return d.MaxAge.Duration(), true
	case r.Header["Expires"] != nil:
		expires, err := http.ParseTime(r.Header.Get("Expires"))
		if err != nil { // invalid dates are in the past (RFC 9111, section 5.3)
			return 0, true
		}
		return min(max(0, expires.Sub(r.date())), mostSeconds.Duration()), true
	}
	return 0, false
}

// date returns the value of Date, or the time of receipt.
func (r *Response) date() time.Time {
	if date, err := http.ParseTime(r.Header.Get("Date")); err == nil {
		return date
	}
	return r.Received
}

// Age returns the age of a response at its receipt (RFC 9111, section 4.2.3).
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

// heuristic reports whether the status is heuristically cacheable (RFC 9110, section
// 15.1). It excludes 206, which is not stored.
func heuristic(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// understood reports whether the cache implements the caching requirements of the status.
func understood(status int) bool {
	switch status {
	case 302, 303, 307, 400, 401, 403, 451, 500, 502, 503, 504:
		return true
	}
	return heuristic(status)
}
