package httpcache

import (
	"cmp"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"
)

// Request is what decides whether a request can use stored responses, besides its key.
type Request struct {
	// Bypass is why the request does not use the cache, empty if it does. The values are
	// those of the parameter fwd (RFC 9211).
	Bypass Forward

	Head        bool
	Range       bool // requests a part
	Conditional bool // has a condition that a cache may evaluate

	// Identified is whether the client is identified by other means than a field.
	Identified bool

	// UserKeyed and ConsumerKeyed are whether the key has the authenticated user or
	// consumer, and so depends on all credentials but cookies. TokenKeyed is whether the
	// key has the field Authorization, and so depends on the identity derived from it.
	UserKeyed, ConsumerKeyed, TokenKeyed bool

	// The first field of each class in alphabetical order.
	Exclusive, Credential, Unknown string

	Constant bool // whether there is a field of this class

	// Personal is whether the stale responses that only the options allow are not for this
	// request.
	Personal bool

	NoCache, NoStore, OnlyIfCached bool
	MaxAge, MaxStale, MinFresh     Seconds

	Header http.Header
	Rules  Rules

	// Received is the request from the client. The proxy derives X-Forwarded-For,
	// X-Forwarded-Proto and X-Forwarded-Host from it.
	Received *http.Request
}

// VariesUnseen reports whether a response with this Vary depends on a field whose value the
// cache does not see.
func (q *Request) VariesUnseen(vary []string) bool {
	for _, line := range vary {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.Trim(name, " \t"); name == "*" || q.Rules.Set[textproto.CanonicalMIMEHeaderKey(name)].Unseen {
				return true
			}
		}
	}
	return false
}

// sent returns the lines of a field as sent to the backend.
func (q *Request) sent(name string) (lines []string, ok bool) {
	lines, ok = q.Header[name]
	if q.Received == nil {
		return lines, ok
	}
	last := ""
	if ok && q.Rules.Trusted && len(lines) > 0 {
		last = lines[len(lines)-1]
	}
	switch name {
	case "X-Forwarded-For":
		peer, _, err := net.SplitHostPort(q.Received.RemoteAddr)
		if err != nil {
			peer = q.Received.RemoteAddr
		}
		if !q.Rules.Trusted || strings.Join(lines, "") == "" {
			return []string{peer}, true
		}
		return append(slices.Clone(lines), peer), true
	case "X-Forwarded-Proto":
		switch {
		case last != "":
		case q.Received.TLS != nil:
			last = "https"
		default:
			last = "http"
		}
		return []string{last}, true
	case "X-Forwarded-Host":
		return []string{cmp.Or(last, q.Received.Host)}, true
	}
	return lines, ok
}

// PersonalTo reports whether a response with this Vary may be meant for this client alone,
// and the first field because of which.
func (q *Request) PersonalTo(vary []string) (personal bool, field string) {
	field = q.Blame(vary, true)
	return q.Identified || field != "", field
}

// Blame returns the first field because of which a response must not be shared: a
// credential or, if unknown is true, an unknown field. Fields in the response's Vary do not
// count, except Authorization (RFC 9111, section 3.5).
func (q *Request) Blame(vary []string, unknown bool) string { return q.blame(vary, unknown, false) }

// blame is Blame; authorized is whether the response may be shared despite Authorization.
func (q *Request) blame(vary []string, unknown, authorized bool) (first string) {
	if q.Credential == "" && (q.Unknown == "" || !unknown) {
		return ""
	}
	if len(vary) == 0 && !authorized {
		if unknown && q.Unknown != "" && (q.Credential == "" || q.Unknown < q.Credential) {
			return q.Unknown
		}
		return q.Credential
	}
	for name, values := range q.Header {
		switch class := q.Class(name, values); {
		case class == Unknown && unknown || class == Credential && !isAuthorization(name):
			if !varyNamesField(vary, name) {
				note(&first, name)
			}
		case class == Credential && !authorized:
			note(&first, name)
		}
	}
	return first
}

// Class returns the class of a field of the request.
func (q *Request) Class(name string, values []string) Class {
	class := q.Rules.Class(name, values)
	switch {
	case class != Credential || name == "Cookie":
	case q.UserKeyed, q.ConsumerKeyed && !isAuthorization(name):
		return Ignorable
	case q.TokenKeyed && q.Rules.isIdentity(name):
		return Constant
	}
	return class
}

func note(first *string, name string) {
	if *first == "" || name < *first {
		*first = name
	}
}

// Forward is why a request was not served from the store.
type Forward string

// Why a request is forwarded (RFC 9211, section 2.2).
const (
	Bypassed Forward = "bypass"
	Method   Forward = "method"
	URIMiss  Forward = "uri-miss"
	VaryMiss Forward = "vary-miss"
	Asked    Forward = "request"
	Stale    Forward = "stale"
	Partial  Forward = "partial"
)

// ReadRequest returns the Request of r. If ignore is true, it ignores Cache-Control. from has
// what the caller knows of the client.
func ReadRequest(r *http.Request, ignore bool, from Request) (q Request) {
	q = from
	q.Head, q.MaxAge, q.MaxStale, q.MinFresh = r.Method == http.MethodHead, Absent, Absent, Absent
	if !q.Head && r.Method != http.MethodGet {
		q.Bypass = Method
		return q
	}
	if r.ContentLength != 0 { // the response may depend on the body
		q.Bypass = Bypassed
	}
	q.Header, q.Received = r.Header, r
	var control, pragma []string
	for name, lines := range r.Header {
		switch q.Class(name, lines) {
		case Unknown:
			note(&q.Unknown, name)
		case Credential:
			note(&q.Credential, name)
		case Exclusive:
			note(&q.Exclusive, name)
			q.Bypass = Bypassed
		case Constant:
			q.Constant = true
		case Own:
			switch name {
			case "Cache-Control":
				control = lines
			case "Pragma":
				pragma = lines
			case "Range":
				q.Range = true
			case "If-None-Match", "If-Modified-Since":
				q.Conditional = true
			case "If-Match", "If-Unmodified-Since": // the origin evaluates them
				q.Bypass = Bypassed
			}
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

// Use is how a stored response may be used.
type Use int

// How a stored response may be used.
const (
	Validate    Use = iota // only after a validation
	Fresh                  // serve it
	Tolerated              // serve it although stale: the client allows it
	Revalidated            // serve it although stale, and validate it in the background
)

// Judge returns how a stored response may be used for a request, and if it is not fresh, why.
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
	case q.MaxAge.Given() || q.MinFresh.Given(): // the client restricts staleness itself
		return Validate, Stale
	case -left < f.WhileRevalidate && !(f.OwnWhile && q.Personal):
		return Revalidated, Stale
	}
	return Validate, Stale
}
