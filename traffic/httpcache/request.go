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

// Request holds the properties of a request that, besides its key, determine which stored
// responses it can use.
type Request struct {
	// Bypass is the reason for bypassing the cache, or "". Values are those of the
	// parameter fwd (RFC 9211).
	Bypass Forward

	Head        bool
	Range       bool // has a Range field
	Conditional bool // has a condition that the cache may evaluate

	// Identified reports whether the client is identified by something other than a
	// field, such as a certificate.
	Identified bool

	// UserKeyed and ConsumerKeyed report whether the key contains the authenticated user
	// or consumer. The key then covers all credentials except cookies. TokenKeyed reports
	// whether it contains Authorization, and so covers the identity derived from it.
	UserKeyed, ConsumerKeyed, TokenKeyed bool

	// The first field name of each class, in alphabetical order.
	Exclusive, Credential, Unknown string

	Constant bool // the request has a field of class Constant

	// Personal reports whether the request cannot use responses that are stored or served
	// stale only because of the options.
	Personal bool

	NoCache, NoStore, OnlyIfCached bool
	MaxAge, MaxStale, MinFresh     Seconds

	Header http.Header
	Rules  Rules

	// Received is the client's request. The reverse proxy derives X-Forwarded-For,
	// X-Forwarded-Proto and X-Forwarded-Host from it.
	Received *http.Request
}

// VariesUnseen reports whether this Vary contains `*` or a field whose value is set after
// the cache.
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

// sent returns the lines of a field as the reverse proxy sends them to the backend.
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

// PersonalTo reports whether a response with this Vary may be specific to the client.
// field is the first request field that causes it, or "".
func (q *Request) PersonalTo(vary []string) (personal bool, field string) {
	field = q.Blame(vary, true)
	return q.Identified || field != "", field
}

// Blame returns the name of the first field that prevents sharing the response: a
// credential or, if unknown is true, an unknown field. It ignores fields named in Vary,
// except Authorization (RFC 9111, section 3.5).
func (q *Request) Blame(vary []string, unknown bool) string { return q.blame(vary, unknown, false) }

// blame implements Blame. If authorized is true, Authorization does not prevent sharing.
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

// Forward is the reason for forwarding a request to the origin.
type Forward string

// Reasons for forwarding a request (RFC 9211, section 2.2).
const (
	Bypassed Forward = "bypass"
	Method   Forward = "method"
	URIMiss  Forward = "uri-miss"
	VaryMiss Forward = "vary-miss"
	Asked    Forward = "request"
	Stale    Forward = "stale"
	Partial  Forward = "partial"
)

// ReadRequest returns the Request of r. If ignore is true, it ignores Cache-Control and
// Pragma. from contains the properties that the caller has set.
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
			case "If-Match", "If-Unmodified-Since": // evaluated by the origin
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

// Use is the permitted use of a stored response.
type Use int

// Permitted uses of a stored response.
const (
	Validate    Use = iota // validate before serving
	Fresh                  // serve
	Tolerated              // serve although stale: allowed by max-stale
	Revalidated            // serve although stale, and validate in the background
)

// Judge returns the permitted use of a stored response for the request. Unless the use is
// Fresh, it also returns the reason for forwarding.
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
	case q.MaxAge.Given() || q.MinFresh.Given(): // the client limits the age itself
		return Validate, Stale
	case -left < f.WhileRevalidate && !(f.OwnWhile && q.Personal):
		return Revalidated, Stale
	}
	return Validate, Stale
}
