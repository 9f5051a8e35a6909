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

// Request is what a cache has to know of a request, other than where it goes.
type Request struct {
	// Bypass is why the request is none for a cache, empty if it is one. The values
	// are those of the parameter fwd (RFC 9211).
	Bypass Forward

	Head        bool
	Range       bool // it asks for a part
	Conditional bool // it has a condition that a cache may judge

	// Identified is whether it is known who sent the request, other than by a field.
	Identified bool

	// UserKeyed and ConsumerKeyed are whether the key tells apart the users, or the
	// consumers, that policies have found out, and so all credentials but cookies.
	// TokenKeyed is whether it tells apart the fields Authorization, and so those whom
	// policies have found out by them.
	UserKeyed, ConsumerKeyed, TokenKeyed bool

	// The first fields of these classes, in the order of the alphabet.
	Exclusive, Credential, Unknown string

	Constant bool // there is a field of this class

	// Personal is whether what the operator allows, beyond what the stored response says,
	// does not hold for this request.
	Personal bool

	NoCache, NoStore, OnlyIfCached bool
	MaxAge, MaxStale, MinFresh     Seconds

	Header http.Header
	Rules  Rules

	// Received is the request as it has come. A proxy makes of it what backends get in
	// X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host.
	Received *http.Request
}

// VariesUnseen reports whether a response with this Vary depends on more than what can be
// told of the request.
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

// sent returns the lines of a field as the backend gets them.
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

// PersonalTo reports whether a response with this Vary may be another one for this request
// than for others that are equal in the fields that Vary names, and the first field because
// of which.
func (q *Request) PersonalTo(vary []string) (personal bool, field string) {
	field = q.Blame(vary, true)
	return q.Identified || field != "", field
}

// Blame returns the first field because of which a response must not be given to others:
// a credential, or if unknown is true also an unknown field. Those that are in the
// response's Vary are none, but for Authorization (RFC 9111, section 3.5).
func (q *Request) Blame(vary []string, unknown bool) string { return q.blame(vary, unknown, false) }

// blame does what Blame does; authorized is whether the response allows for Authorization.
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
	case q.TokenKeyed && isIdentity(name):
		return Constant
	}
	return class
}

func note(first *string, name string) {
	if *first == "" || name < *first {
		*first = name
	}
}

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
// Cache-Control says. What the caller knows of the user is in from.
func ReadRequest(r *http.Request, ignore bool, from Request) (q Request) {
	q = from
	q.Head, q.MaxAge, q.MaxStale, q.MinFresh = r.Method == http.MethodHead, Absent, Absent, Absent
	if !q.Head && r.Method != http.MethodGet {
		q.Bypass = Method
		return q
	}
	if r.ContentLength != 0 { // what it says may decide about the answer
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
			case "If-Match", "If-Unmodified-Since": // for the origin to judge
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
	case -left < f.WhileRevalidate && !(f.OwnWhile && q.Personal):
		return Revalidated, Stale
	}
	return Validate, Stale
}
