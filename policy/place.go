package policy

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Place is where in a gateway a request is. It is empty outside of one.
type Place struct {
	Gateway string // its name
	Route   string // the name of the route that took the request
	Backend string // the name of the backend that it goes to
}

// Exchange is what a gateway knows of a request under way, for its policies.
type Exchange interface {
	Place() Place

	// Forward sends the request to another backend of the gateway, through the
	// handlers that stand on it. Its error is as that of the handler that calls it.
	// There may be no backend of that name.
	Forward(backend string, w http.ResponseWriter, r *http.Request) (known bool, err error)
}

// Directory is an Exchange that tells which backends requests can be sent to.
type Directory interface {
	Exchange

	Knows(backend string) bool
}

// LoopedExchange is an Exchange that knows whether the request has passed this process
// before: then it must not wait for itself.
type LoopedExchange interface {
	Exchange

	Looped() bool
}

// Looped reports whether a gateway of this process has forwarded the request before.
func Looped(r *http.Request) bool {
	exchange, ok := ExchangeOf(r).(LoopedExchange)
	return ok && exchange.Looped()
}

// ExchangeVar is the variable of a request that has its Exchange.
const ExchangeVar = "rgate.exchange"

// ExchangeOf returns what a gateway knows of a request, nil outside of one.
func ExchangeOf(r *http.Request) Exchange {
	exchange, _ := caddyhttp.GetVar(r.Context(), ExchangeVar).(Exchange)
	return exchange
}

// PlaceOf returns where in a gateway a request is.
func PlaceOf(r *http.Request) Place {
	if exchange := ExchangeOf(r); exchange != nil {
		return exchange.Place()
	}
	return Place{}
}

// StatusClientClosedRequest is nginx's status for a client that left before it had
// an answer.
const StatusClientClosedRequest = 499

// Failure is the error of a backend that did not answer, or of a policy that did
// not let a request through to it, within a caddyhttp.HandlerError with the status
// for the client. Nothing has been written: a handler further out may answer in its
// place, and in the end the gateway does.
type Failure struct {
	Cause   error
	Verdict Verdict // without blame if it is not known
}

func (f Failure) Error() string { return f.Cause.Error() }

// Unwrap returns the cause.
func (f Failure) Unwrap() error { return f.Cause }

const coveredVar = "rgate.covered"

// Cover notes that a handler answers the failures of those further in also outside of
// a gateway.
func Cover(r *http.Request) { caddyhttp.SetVar(r.Context(), coveredVar, true) }

// Fail turns a request away as Refuse does, but in a gateway leaves it to others to
// answer: to a fallback, or to the gateway itself.
func (b *Base) Fail(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	if ExchangeOf(r) == nil && caddyhttp.GetVar(r.Context(), coveredVar) == nil {
		return b.Refuse(w, r, status, cause)
	}
	b.note(r, status)
	started := b.name != "" // then it is known to stand before the backend
	return caddyhttp.Error(status, Failure{cause, Verdict{Blame: BlameGateway, Status: status, Unsent: started}})
}

// note counts a refusal and says in a placeholder whose it was.
func (b *Base) note(r *http.Request, status int) {
	route := PlaceOf(r).Route
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.rgate.refused_by", b.name)
	}
	refusals.Count(refusal{b.name, route, status})
}
