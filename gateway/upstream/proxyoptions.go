package upstream

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// The defaults of a service's proxy that differ from Caddy's.
const (
	defaultRetries   = 2
	defaultFirstByte = time.Minute

	// The time for which upgraded connections stay open after a reload.
	defaultStreamCloseDelay = 10 * time.Minute

	// The maximum number of idle connections per upstream. With Caddy's default of 32,
	// more concurrent requests would constantly open and close connections.
	defaultIdleConns = 256
)

// ProxyOptions holds options of reverse_proxy in JSON form.
type ProxyOptions map[string]json.RawMessage

// Object returns an option whose value is an object. An absent option yields an empty
// object.
func (o ProxyOptions) Object(key string) (ProxyOptions, error) {
	inner := ProxyOptions{}
	if raw, ok := o[key]; ok {
		if err := json.Unmarshal(raw, &inner); err != nil {
			return nil, fmt.Errorf("invalid %s: must be an object: %w", key, err)
		}
	}
	if inner == nil { // null
		inner = ProxyOptions{}
	}
	return inner, nil
}

// set sets an option.
func (o ProxyOptions) set(key string, value any) { o[key] = caddyconfig.JSON(value, nil) }

// setDefault sets an option if it is absent.
func (o ProxyOptions) setDefault(key string, value any) {
	if _, ok := o[key]; !ok {
		o.set(key, value)
	}
}

// setScheme sets the options of an HTTP transport for a scheme. It changes nothing for
// http and an empty scheme.
func (o ProxyOptions) setScheme(scheme string) {
	switch scheme {
	case "https":
		o.setDefault("tls", struct{}{})
	case "h2c":
		o.set("versions", []string{"h2c"})
	}
}

// proxyOptions returns the JSON options of the service's reverse proxy: the configured
// ones, those derived from the service's own options, and defaults.
func (s *Service) proxyOptions() (ProxyOptions, error) {
	options := ProxyOptions{}
	if s.options.Proxy != nil {
		if err := json.Unmarshal(s.options.Proxy, &options); err != nil {
			return nil, err
		}
		if options == nil { // null
			options = ProxyOptions{}
		}
	}
	balancing, err := options.Object("load_balancing")
	if err != nil {
		return nil, err
	}
	if s.options.LBPolicy != nil {
		balancing.set("selection_policy", s.options.LBPolicy)
	}
	if s.options.Retries != nil {
		balancing.set("retries", *s.options.Retries)
	} else if _, ok := balancing["try_duration"]; !ok {
		balancing.setDefault("retries", defaultRetries)
	}
	options.set("load_balancing", balancing)
	options.setDefault("stream_close_delay", s.options.StreamCloseDelay.Or(defaultStreamCloseDelay))

	transport, err := options.Object("transport")
	if err != nil {
		return nil, err
	}
	transport.setDefault("protocol", "http")
	if string(transport["protocol"]) == `"http"` {
		s.httpTransport(transport)
		if s.keepHost, err = s.keepsHost(options, transport); err != nil {
			return nil, err
		}
	}
	options.set("transport", transport)

	if len(s.options.Dial) > 0 {
		upstreams := make([]map[string]string, len(s.options.Dial))
		for i, dial := range s.options.Dial {
			upstreams[i] = map[string]string{"dial": dial}
		}
		options.set("upstreams", upstreams)
	}
	return options, nil
}

// keepsHost reports whether upstreams get the client's Host, although Caddy's transport
// with TLS sets Host to the address of the upstream. Static addresses get their own,
// because they may be names of virtual hosts. Options that edit Host take precedence.
func (s *Service) keepsHost(options, transport ProxyOptions) (bool, error) {
	if tls, ok := transport["tls"]; !ok || string(tls) == "null" || len(s.options.Dial) > 0 || s.options.UseContainerHost {
		return false, nil
	}
	fields, err := options.Object("headers")
	if err != nil {
		return false, err
	}
	request, err := fields.Object("request")
	if err != nil {
		return false, err
	}
	for _, edit := range []string{"add", "set", "replace"} {
		edited, err := request.Object(edit)
		if err != nil {
			return false, err
		}
		for name := range edited {
			if strings.EqualFold(name, "Host") {
				return false, nil
			}
		}
	}
	return true, nil
}

// httpTransport adds the service's options and defaults to those of an HTTP transport.
func (s *Service) httpTransport(transport ProxyOptions) {
	s.options.Limits.apply(transport)
	transport.setDefault("response_header_timeout", defaultFirstByte)
	transport.setDefault("keep_alive", map[string]int{"max_idle_conns_per_host": defaultIdleConns})
	// By default, upstreams are dialed directly, without a proxy from the environment.
	if _, ok := transport["forward_proxy_url"]; !ok && !s.options.UseEnvironmentProxy {
		_, ok = transport["network_proxy"]
		s.direct = !ok
		transport.setDefault("network_proxy", map[string]string{"from": "none"})
	}
	// Responses are forwarded in the upstream's encoding.
	transport.setDefault("compression", false)
	transport.setScheme(s.options.Scheme)
}
