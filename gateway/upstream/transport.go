package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/gateway/routing"
	"github.com/rgate/rgate/internal/dialing"
	"github.com/rgate/rgate/internal/failure"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
)

// transport is Caddy's HTTP transport with the scheme of the selected container and the
// time limits of the route.
type transport struct {
	schemeTransports
	limited map[Limits]schemeTransports // for routes with their own limits
	service *Service
}

// schemeTransports holds transports that differ only in their scheme.
type schemeTransports struct {
	*reverseproxy.HTTPTransport
	schemes map[string]*reverseproxy.HTTPTransport // nil: the same scheme for all containers
}

// latencyTransport is a transport that a selection policy wraps around the proxy's
// transport to measure round trips. It must also wrap the gateway's transports.
type latencyTransport interface {
	Unwrap() http.RoundTripper
	Around(http.RoundTripper) http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	state := requestOf(r)
	transports := t.schemeTransports
	if state.Limits != (Limits{}) {
		if own, ok := t.limited[state.Limits]; ok {
			transports = own
		}
	}
	via, target := transports.HTTPTransport, state.attempt.target()
	if transports.schemes != nil {
		r.URL.Scheme = "" // set by the previous attempt
		if target != nil && transports.schemes[target.Scheme] != nil {
			via = transports.schemes[target.Scheme]
		}
	}
	if t.service.keepHost {
		r.Host = state.host
	}
	if target != nil {
		dialing.UsePool(r, via, target.Pool)
	}
	if r.Method == http.MethodConnect {
		return nil, errConnect
	}
	routing.KeepPathBytes(r)
	status := 0
	response, err := via.RoundTrip(state.prepare(r, via))
	if err == nil {
		err = checkResponse(r, response)
	}
	if err == nil {
		status, state.attempt.result = response.StatusCode, failure.Result{}
		t.service.rests.Succeeded(state.attempt.dial)
		if status == http.StatusSwitchingProtocols {
			t.service.streams.enter(state)
		}
		state.allowPause(r)
		if response.Trailer != nil {
			trust.CleanTrailers(response.Trailer)
		}
	} else {
		state.attempt.result = failure.ClassifyRequest(r, 0, err)
		t.service.restAfter(state, err)
	}
	if state.guard != nil {
		state.guard.End(status, err)
	}
	if state.attempt.result.Cause == failure.Client && (state.upload != nil || !errors.Is(err, context.Canceled)) {
		state.attempt.fault = err
		return nil, clientFault{err}
	}
	return response, err
}

var (
	errConnect  = errors.New("CONNECT requests cannot be forwarded: use a forward proxy")
	errSwitched = errors.New("the backend switched to a protocol that the request did not offer")
	errNoStatus = errors.New("invalid status of the backend's response: must be at least 100")
)

// checkResponse returns an error for a response that cannot be forwarded. That is a
// switch to a protocol that the request did not offer (RFC 9110, section 7.8), or a
// status below 100.
func checkResponse(r *http.Request, response *http.Response) (err error) {
	switch status := response.StatusCode; {
	case status == http.StatusSwitchingProtocols && !offers(r.Header, response.Header):
		err = errSwitched
	case status < 100:
		err = errNoStatus
	case status == http.StatusNoContent:
		response.Header.Del("Content-Length") // RFC 9110, section 8.6; net/http keeps it in HTTP/2
		return nil
	default:
		return nil
	}
	_ = response.Body.Close()
	return err
}

// Limits holds the time limits of a route that the transport applies. Routes with equal
// limits share a transport and its connections.
type Limits struct{ Dial, FirstByte options.Timeout }

// noDialTimeout is the dial timeout of a service without a limit. Caddy replaces 0 with
// its default, and a negative timeout fails immediately in package net.
const noDialTimeout = unlimited

// apply sets the limits in the options of Caddy's HTTP transport.
func (l Limits) apply(transport ProxyOptions) {
	if l.Dial != 0 {
		transport.set("dial_timeout", cmp.Or(l.Dial.Or(0), noDialTimeout))
	}
	if l.FirstByte != 0 {
		transport.set("response_header_timeout", l.FirstByte.Or(0))
	}
}

// restAfter makes the address of a failed attempt rest if it could not be dialed.
func (s *Service) restAfter(state *Request, err error) {
	if result := state.attempt.result; result.Cause == failure.Backend && result.Unsent && !s.options.IgnoreFailedDials {
		s.rests.Failed(state.attempt.dial, state.instance(state.attempt.dial), err)
	}
}

// otherTransport is a transport that is not HTTP, such as FastCGI.
type otherTransport struct {
	dialing.Wrapper
	service *Service
}

// RoundTrip implements http.RoundTripper.
func (t otherTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	state := requestOf(r)
	response, err := t.Wrapper.RoundTrip(r)
	if err == nil {
		state.attempt.result = failure.Result{}
		t.service.rests.Succeeded(state.attempt.dial)
	} else {
		state.attempt.result = failure.ClassifyRequest(r, 0, err)
		t.service.restAfter(state, err)
	}
	return response, err
}

// wrapTransport wraps Caddy's HTTP transport in the service's transport.
func (s *Service) wrapTransport(ctx caddy.Context, options ProxyOptions) error {
	inner := s.proxy.Transport
	outer, timed := inner.(latencyTransport)
	if timed {
		inner = outer.Unwrap()
	}
	base, ok := inner.(*reverseproxy.HTTPTransport)
	if !ok {
		s.proxy.Transport = otherTransport{dialing.Wrapper{RoundTripper: s.proxy.Transport}, s}
		return nil
	}
	own, err := options.Object("transport")
	if err != nil {
		return err
	}
	schemes, err := s.schemes(ctx, own)
	if err != nil {
		return err
	}
	s.watchConnections(base)
	s.transport = &transport{schemeTransports{base, schemes}, make(map[Limits]schemeTransports), s}
	s.proxy.Transport = s.transport
	if timed {
		s.proxy.Transport = outer.Around(s.transport)
	}
	return nil
}

// schemes loads a transport for each scheme, except http, that container labels can set.
// It returns nil if the service has no containers or a fixed scheme.
func (s *Service) schemes(ctx caddy.Context, options ProxyOptions) (map[string]*reverseproxy.HTTPTransport, error) {
	if s.options.Containers == nil || s.options.Scheme != "" {
		return nil, nil
	}
	schemes := make(map[string]*reverseproxy.HTTPTransport, 2)
	for _, scheme := range []string{"https", "h2c"} {
		own := maps.Clone(options)
		own.setScheme(scheme)
		transport, err := s.loadTransport(ctx, own)
		if err != nil {
			return nil, err
		}
		schemes[scheme] = transport
	}
	return schemes, nil
}

func (s *Service) loadTransport(ctx caddy.Context, options ProxyOptions) (*reverseproxy.HTTPTransport, error) {
	delete(options, "protocol")
	module, err := ctx.LoadModuleByID("http.reverse_proxy.transport.http", caddyconfig.JSON(options, nil))
	if err != nil {
		return nil, err
	}
	transport := module.(*reverseproxy.HTTPTransport)
	s.watchConnections(transport)
	return transport, nil
}

// watchConnections makes a transport check connections to containers and wait for
// responses after write errors.
func (s *Service) watchConnections(t *reverseproxy.HTTPTransport) {
	if s.options.Containers != nil && !s.options.AllowLocalAddresses {
		dialing.CheckConnections(t, s.checkConnection)
	}
	waitAfterWriteErrors(t)
}

// checkConnection returns an error for a connection to a container that leads back to
// the gateway. The address of a container that was removed after its selection counts as
// labeled.
func (s *Service) checkConnection(dial string, conn net.Conn) error {
	target := s.options.Containers.Set().ByDial(dial)
	if target == nil && s.options.Registered != nil && slices.Contains(s.options.Registered(), dial) {
		return nil
	}
	return dialing.CheckLocal(conn, target == nil || target.Labeled)
}

// AddLimits loads the transports for the time limits of a route.
func (s *Service) AddLimits(ctx caddy.Context, added Limits) error {
	if added == (Limits{}) {
		return nil
	}
	if s.transport == nil {
		return fmt.Errorf("timeouts dial and first_byte of backend %s require an HTTP transport: remove them, or use total", s.options.Name)
	}
	if _, ok := s.transport.limited[added]; ok {
		return nil
	}
	options, err := s.proxyOptions()
	if err != nil {
		return err
	}
	own, err := options.Object("transport")
	if err != nil {
		return err
	}
	added.apply(own)
	schemes, err := s.schemes(ctx, own)
	if err != nil {
		return err
	}
	base, err := s.loadTransport(ctx, own)
	if err != nil {
		return err
	}
	s.transport.limited[added] = schemeTransports{base, schemes}
	return nil
}

// Interface guards
var (
	_ http.RoundTripper         = (*transport)(nil)
	_ http.RoundTripper         = otherTransport{}
	_ reverseproxy.TLSTransport = (*transport)(nil)
)
