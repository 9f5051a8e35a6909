package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/dockerupstreams"
	"github.com/rgate/rgate/gateway/routing"
	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/trust"
)

// The types of this file stand in the joints of Caddy's reverse proxy: which
// upstreams there are, which one is chosen, how it is spoken to, and whether to
// try another.

// containers offers the proxy the containers of a backend.
type containers struct{ *dockerupstreams.Subscription }

// GetUpstreams implements reverseproxy.UpstreamSource.
func (c containers) GetUpstreams(r *http.Request) ([]*reverseproxy.Upstream, error) {
	set := c.Set()
	if ex := exchangeOf(r); ex != nil {
		ex.set, ex.containers = set, c.Subscription
	}
	return dockerupstreams.Upstreams(set.Targets), nil
}

// ResetCache implements reverseproxy.CachingUpstreamSource. The proxy calls it
// before it tries again: an upstream that failed may be gone already.
func (c containers) ResetCache(*http.Request) error {
	c.Refresh()
	return nil
}

// joined offers the proxy the containers or addresses of a backend, and the
// instances that have registered for it. Selection policies know them by address.
type joined struct{ *Backend }

// GetUpstreams implements reverseproxy.UpstreamSource.
func (j joined) GetUpstreams(r *http.Request) (all []*reverseproxy.Upstream, err error) {
	if j.containers != nil {
		if all, err = (containers{j.containers}).GetUpstreams(r); err != nil {
			return nil, err
		}
	}
	for _, dial := range slices.Concat(j.Dial, j.registered()) {
		all = append(all, &reverseproxy.Upstream{Dial: dial})
	}
	return all, nil
}

// ResetCache implements reverseproxy.CachingUpstreamSource.
func (j joined) ResetCache(r *http.Request) error {
	if j.containers == nil {
		return nil
	}
	return containers{j.containers}.ResetCache(r)
}

// untried is a selection policy that chooses by another one among the upstreams
// that the request has not been to, as long as the backend's retries are within
// their budget. If the proxy waits between attempts, it begins anew once all have
// been tried.
type untried struct {
	reverseproxy.Selector
	budget *budget
	again  bool
}

// Select implements reverseproxy.Selector.
func (u untried) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	ex := exchangeOf(r)
	if ex.dial != "" { // an attempt before this one failed
		if ex.spent = ex.spent || !u.budget.retry(); ex.spent {
			return nil
		}
		ex.tried = append(ex.tried, ex.dial)
		fresh := make(reverseproxy.UpstreamPool, 0, len(pool))
		for _, upstream := range pool {
			if !slices.Contains(ex.tried, upstream.Dial) {
				fresh = append(fresh, upstream)
			}
		}
		if len(fresh) == 0 && u.again {
			ex.tried, fresh = ex.tried[:0], pool
		}
		pool = fresh
	}
	if len(pool) == 0 {
		return nil
	}
	selector := u.Selector
	if ex.guard != nil {
		selector = watched{selector, ex.guard}
	}
	chosen := selector.Select(pool, r, w)
	if chosen != nil {
		ex.dial = chosen.Dial
	}
	return chosen
}

// transport is Caddy's HTTP transport, in the scheme that the chosen container
// asks for, and within the time limits of the route.
type transport struct {
	speakers
	limited map[limits]speakers // for routes with limits of their own
}

// speakers are transports that differ in their scheme alone.
type speakers struct {
	*reverseproxy.HTTPTransport
	schemes map[string]*reverseproxy.HTTPTransport // nil: the same for all
}

// clock is what a selection policy may have put around the transport of a proxy to
// learn how long round trips take: it belongs around the gateway's.
type clock interface {
	Unwrap() http.RoundTripper
	Around(http.RoundTripper) http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ex := exchangeOf(r)
	by := t.speakers
	if ex.route.limits != (limits{}) {
		if own, ok := t.limited[ex.route.limits]; ok {
			by = own
		}
	}
	via := by.HTTPTransport
	if by.schemes != nil {
		r.URL.Scheme = "" // of an attempt before
		if target := ex.target(); target != nil && by.schemes[target.Scheme] != nil {
			via = by.schemes[target.Scheme]
		}
	}
	if r.Method == http.MethodConnect {
		return nil, errConnect
	}
	routing.KeepPathBytes(r)
	status := 0
	response, err := via.RoundTrip(ex.prepared(r, via))
	if err == nil {
		err = checkResponse(r, response)
	}
	if err == nil {
		status, ex.verdict = response.StatusCode, failure.Result{}
		ex.waitForClient(r)
		if response.Trailer != nil {
			trust.CleanTrailers(response.Trailer)
		}
	} else {
		ex.verdict = failure.ClassifyRequest(r, 0, err)
	}
	if ex.guard != nil {
		ex.guard.End(status, err)
	}
	if ex.verdict.Cause == failure.Client && (ex.upload != nil || !errors.Is(err, context.Canceled)) {
		ex.fault = err
		return nil, clientFault{err}
	}
	return response, err
}

var (
	errConnect  = errors.New("CONNECT cannot be passed on: its body would have no frame")
	errSwitched = errors.New("the backend has switched protocols without being asked to")
	errNoStatus = errors.New("the status of the backend's response is below 100")
)

// checkResponse refuses a response that cannot be passed on: a switch to a protocol that
// the request does not offer (RFC 9110, section 7.8), or a status that is none.
func checkResponse(r *http.Request, response *http.Response) (err error) {
	switch status := response.StatusCode; {
	case status == http.StatusSwitchingProtocols && !offers(r.Header, response.Header):
		err = errSwitched
	case status < 100:
		err = errNoStatus
	case status == http.StatusNoContent:
		response.Header.Del("Content-Length") // RFC 9110, section 8.6; net/http leaves it in HTTP/2
		return nil
	default:
		return nil
	}
	_ = response.Body.Close()
	return err
}

// repeatable matches requests that may be sent to a second upstream although a
// first one may have seen them: those that change nothing, and whose body is not
// used up because they have none.
type repeatable struct{}

// MatchWithError implements caddyhttp.RequestMatcherWithError.
func (repeatable) MatchWithError(r *http.Request) (bool, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		verdict := exchangeOf(r).verdict
		return verdict.Cause != failure.Client && !verdict.TimedOut() && !httpx.HasBody(r), nil
	}
	return false, nil
}

var (
	_ reverseproxy.CachingUpstreamSource = containers{}
	_ reverseproxy.CachingUpstreamSource = joined{}
	_ reverseproxy.Selector              = untried{}
	_ http.RoundTripper                  = (*transport)(nil)
	_ reverseproxy.TLSTransport          = (*transport)(nil)
	_ caddyhttp.RequestMatcherWithError  = repeatable{}
)
