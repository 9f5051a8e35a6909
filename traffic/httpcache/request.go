package httpcache

import (
	"net/http"
	"strings"
	"time"
)

// Request is what a cache has to know of a request, other than where it goes.
type Request struct {
	// Bypass is why the request is none for a cache, empty if it is one. The values
	// are those of the parameter fwd (RFC 9211).
	Bypass Forward

	Head        bool
	Range       bool // it asks for a part
	Conditional bool // it has a condition that a cache may judge

	// Credentials are what the answer may depend on in a way that it does not say.
	Credentials Credentials

	NoCache, NoStore, OnlyIfCached bool
	MaxAge, MaxStale, MinFresh     Seconds
}

// Credentials are ways in which a request tells who sent it.
type Credentials uint8

// Ways in which a request tells who sent it. All but cookies mean that it was meant
// for one user (RFC 9111, section 3.5).
const (
	Cookies       Credentials = 1 << iota
	Authorization             // the header field
	User                      // whom another handler has found out
	Consumer                  // likewise
	Certificate               // of the client
)

// Identified reports whether there are credentials other than cookies.
func (c Credentials) Identified() bool { return c&^Cookies != 0 }

// Forward is why a request was not answered from the store.
type Forward string

// Why a request goes on (RFC 9211, section 2.2).
const (
	Bypassed Forward = "bypass"
	Method   Forward = "method"
	URIMiss  Forward = "uri-miss"
	VaryMiss Forward = "vary-miss"
	Asked    Forward = "request"
	Stale    Forward = "stale"
	Partial  Forward = "partial"
)

// ReadRequest reads a request. If ignore is true, it does not matter what its
// Cache-Control says.
func ReadRequest(r *http.Request, ignore bool) (q Request) {
	q = Request{Head: r.Method == http.MethodHead, MaxAge: Absent, MaxStale: Absent, MinFresh: Absent}
	if !q.Head && r.Method != http.MethodGet {
		q.Bypass = Method
		return q
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		q.Credentials |= Certificate
	}
	if r.ContentLength != 0 { // what it says may decide about the answer
		q.Bypass = Bypassed
	}
	var control, pragma []string
	for name, lines := range r.Header {
		switch name {
		case "Cache-Control":
			control = lines
		case "Pragma":
			pragma = lines
		case "Range":
			q.Range = true
		case "If-None-Match", "If-Modified-Since":
			q.Conditional = true
		case "Cookie":
			q.Credentials |= Cookies
		case "Authorization":
			q.Credentials |= Authorization
		case "X-User-Id":
			q.Credentials |= User
		case "X-Consumer-Username":
			q.Credentials |= Consumer
		case "Upgrade", "If-Match", "If-Unmodified-Since",
			"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Original-Url", "X-Rewrite-Url":
			// For the origin to judge, or what may make another request of it.
			q.Bypass = Bypassed
		}
	}
	if ignore || control == nil && pragma == nil {
		return q
	}
	if control == nil {
		q.NoCache = strings.Contains(strings.ToLower(strings.Join(pragma, ",")), "no-cache")
		return q
	}
	d := ParseDirectives(control)
	q.NoCache, q.NoStore, q.OnlyIfCached = d.NoCache, d.NoStore, d.OnlyIfCached
	q.MaxAge, q.MaxStale, q.MinFresh = d.MaxAge, d.MaxStale, d.MinFresh
	return q
}

// Use is what may be done with a stored answer.
type Use int

// What may be done with a stored answer.
const (
	Validate    Use = iota // nothing, unless the origin says that it still holds
	Fresh                  // give it
	Tolerated              // give it although it is stale: the client says so
	Revalidated            // give it although it is stale, and validate it meanwhile
)

// Judge says what may be done with a stored answer for a request at this time, and
// why it is not simply given.
func (q *Request) Judge(f *Freshness, now time.Time) (Use, Forward) {
	age := f.Age(now)
	left := f.Lifetime - age
	switch {
	case f.Validate:
		return Validate, Stale
	case q.NoCache:
		return Validate, Asked
	case q.MaxAge.Given() && age > q.MaxAge.Duration(), left > 0 && q.MinFresh.Given() && left < q.MinFresh.Duration():
		return Validate, Asked
	case left > 0:
		return Fresh, ""
	case q.MaxStale.Given() && !q.MinFresh.Given() && !f.Strict && -left <= q.MaxStale.Duration():
		return Tolerated, Stale
	case q.MaxAge.Given() || q.MinFresh.Given(): // it is for clients to say that they take what is stale
		return Validate, Stale
	case -left < f.WhileRevalidate:
		return Revalidated, Stale
	}
	return Validate, Stale
}
