package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/gateway/upstream"
	"github.com/rgate/rgate/internal/options"
)

// Problem is an error in the configuration of a gateway.
type Problem struct {
	// The JSON path, such as `routes[2].backend`.
	Path string

	// The message, including the remedy.
	Message string

	// The JSON path of the conflicting value, if any.
	Other string
}

func (p *Problem) Error() string {
	text := p.Text(func(path string) string { return path })
	if p.Path == "" {
		return text
	}
	return p.Path + ": " + text
}

// Text returns the message and the position of the conflicting value, as formatted by
// place.
func (p *Problem) Text(place func(path string) string) string {
	if p.Other == "" {
		return p.Message
	}
	return p.Message + " (the other is " + place(p.Other) + ")"
}

func problemf(path, format string, args ...any) *Problem {
	return &Problem{Path: path, Message: fmt.Sprintf(format, args...)}
}

const (
	maxRetries        = 10
	maxRetryPerSecond = 1000
)

// Check returns the first error in the configuration, as a *Problem. It starts nothing
// and does not check the options of handlers and selection policies.
func (g *Gateway) Check() error {
	if g.Stats != nil {
		if err := g.Stats.Validate(); err != nil {
			return fieldProblem("stats", err)
		}
	}
	if g.Operations != nil {
		if err := g.Operations.Check(); err != nil {
			return fieldProblem("operations", err)
		}
	}
	if err := g.checkKeepFields(); err != nil {
		return err
	}
	if err := g.checkEndpoints(); err != nil {
		return err
	}
	if err := g.checkUsageHandler(); err != nil {
		return err
	}
	if err := g.checkEndpointPaths(); err != nil {
		return err
	}
	for i, endpoint := range g.Docker {
		if err := endpoint.Validate(); err != nil {
			path := fmt.Sprintf("docker[%d]", i)
			problem := fieldProblem(path, err)
			if problem.Path == path {
				problem.Path += ".host"
			}
			return problem
		}
	}
	if err := g.checkLegacy(); err != nil {
		return err
	}
	if err := g.checkHops(); err != nil {
		return err
	}
	if g.StreamCloseDelay.IsOff() && g.StreamCloseDelay != options.TimeoutOff {
		return problemf("stream_close_delay", "invalid stream_close_delay: must not be negative: use 0s to close streams at a reload")
	}
	if d := g.DefaultResponse; d != nil && d.StatusCode != 0 && (d.StatusCode < 200 || d.StatusCode > 599) {
		return problemf("default_response.status_code",
			"invalid status_code %d: must be 200 to 599", d.StatusCode)
	}
	names := make([]string, len(g.Backends))
	for i, b := range g.Backends {
		path := fmt.Sprintf("backends[%d]", i)
		if b == nil {
			return problemf(path, "the backend is empty: set name, and match_labels or dial")
		}
		if b.Name == "" {
			return problemf(path, "name is required: set the name of the backend")
		}
		if first := slices.Index(names[:i], b.Name); first >= 0 {
			problem := problemf(path+".name", "duplicate backend %q: use another name for one of the two", b.Name)
			problem.Other = fmt.Sprintf("backends[%d].name", first)
			return problem
		}
		names[i] = b.Name
		if err := b.check(path); err != nil {
			return err
		}
		if b.Register && (g.Operations == nil || g.Operations.Registration == nil) {
			return problemf(path+".register", "register of backend %q requires operations.registration: set operations.registration or remove register", b.Name)
		}
	}
	if err := g.checkRoutes(names); err != nil {
		return err
	}
	return g.checkFallbacks(names)
}

func (b *Backend) check(path string) error {
	if strings.ContainsAny(b.Name, " \t\r\n{}\"") {
		return problemf(path+".name", "invalid name %q: must not contain spaces, braces or quotes", b.Name)
	}
	if err := b.checkAddresses(path); err != nil {
		return err
	}
	if err := b.checkUpgrades(path); err != nil {
		return err
	}
	if b.Retries != nil && (*b.Retries < 0 || *b.Retries > maxRetries) {
		return problemf(path+".retries", "invalid retries %d: must be 0 to %d", *b.Retries, maxRetries)
	}
	if err := b.RetryBudget.check(path + ".retry_budget"); err != nil {
		return err
	}
	if err := b.Timeouts.check(path + ".timeouts"); err != nil {
		return err
	}
	if err := b.checkPolicy(path); err != nil {
		return err
	}
	return b.checkProxy(path)
}

func (t *Timeouts) check(path string) error {
	switch {
	case t == nil:
		return nil
	case t.Dial.IsOff() && t.Dial != options.TimeoutOff:
		return problemf(path+".dial", "invalid dial: must not be negative: use a duration such as 3s, or 0s to disable the limit")
	case t.FirstByte.IsOff() && t.FirstByte != options.TimeoutOff:
		return problemf(path+".first_byte", "invalid first_byte: must not be negative: use a duration such as 30s, or 0s to disable the limit")
	case t.Total.IsOff() && t.Total != options.TimeoutOff:
		return problemf(path+".total", "invalid total: must not be negative: use a duration such as 1m, or 0s to disable the limit")
	}
	return nil
}

func (o *RetryBudget) check(path string) error {
	switch {
	case o == nil:
		return nil
	case o.Ratio != nil && !(*o.Ratio >= 0 && *o.Ratio <= 1):
		return problemf(path+".ratio", "invalid ratio %v: must be 0 to 1, such as 0.2", *o.Ratio)
	case o.MinPerSecond != nil && (*o.MinPerSecond < 0 || *o.MinPerSecond > maxRetryPerSecond):
		return problemf(path+".min_per_second", "invalid min_per_second %d: must be 0 to %d", *o.MinPerSecond, maxRetryPerSecond)
	}
	return nil
}

func (b *Backend) checkAddresses(path string) error {
	if len(b.Dial) == 0 {
		if b.MatchLabels == nil && b.Register {
			return b.checkWithoutContainers(path, "registers its instances")
		}
		if b.MatchLabels == nil {
			return problemf(path, "backend %q requires match_labels or dial: set one of them", b.Name)
		}
		if err := b.Selector.Validate(); err != nil {
			return fieldProblem(path, err)
		}
		return nil
	}
	if b.MatchLabels != nil {
		return problemf(path+".dial", "match_labels and dial of backend %q cannot be combined: remove one of them", b.Name)
	}
	if err := b.checkWithoutContainers(path, "has static addresses"); err != nil {
		return err
	}
	for i, dial := range b.Dial {
		at := fmt.Sprintf("%s.dial[%d]", path, i)
		if scheme, rest, ok := strings.Cut(dial, "://"); ok {
			return problemf(at, "invalid address %q: must not be a URL: use %q, and scheme: %s", dial, strings.TrimSuffix(rest, "/"), scheme)
		}
		addr, err := caddy.ParseNetworkAddress(dial)
		if err != nil {
			return problemf(at, "invalid address %q: must be host:port", dial)
		}
		if !addr.IsUnixNetwork() && (addr.StartPort == 0 || addr.PortRangeSize() != 1) {
			return problemf(at, "invalid address %q: must be host:port with one port", dial)
		}
	}
	return nil
}

// checkWithoutContainers reports container options on a backend without containers.
// does describes the backend's other source of upstreams.
func (b *Backend) checkWithoutContainers(path, does string) error {
	if b.Port != 0 || b.Network != "" || b.Health != "" || b.HostPort || b.Include != nil {
		return problemf(path+".dial", "port, network, health, host_port and include require match_labels: remove them from backend %q, which %s", b.Name, does)
	}
	switch b.Scheme {
	case "", "http", "https", "h2c":
		return nil
	}
	return problemf(path+".scheme", "unknown scheme %q: use http, https or h2c", b.Scheme)
}

func (b *Backend) checkPolicy(path string) error {
	if b.LBPolicyRaw == nil {
		return nil
	}
	at := path + ".lb_policy"
	var chosen struct {
		Policy  string `json:"policy"`
		Weights []int  `json:"weights"`
	}
	if err := json.Unmarshal(b.LBPolicyRaw, &chosen); err != nil || chosen.Policy == "" {
		return problemf(at, `invalid lb_policy: must be an object with the policy, such as {"policy": "least_conn"}`)
	}
	const namespace = "http.reverse_proxy.selection_policies"
	if _, err := caddy.GetModule(namespace + "." + chosen.Policy); err != nil {
		var known []string
		for _, module := range caddy.GetModules(namespace) {
			known = append(known, module.ID.Name())
		}
		return problemf(at, "unknown selection policy %q%s: use one of %s",
			chosen.Policy, options.Suggest(chosen.Policy, known), strings.Join(known, ", "))
	}
	if chosen.Policy == "weighted_round_robin" && len(chosen.Weights) != len(b.Dial) {
		return problemf(at, "weighted_round_robin requires dial with as many addresses as weights: set dial, or correct the weights")
	}
	return nil
}

// checkProxy reports options of `proxy` that conflict with options of the backend.
func (b *Backend) checkProxy(path string) error {
	if b.ProxyRaw == nil {
		return nil
	}
	at := path + ".proxy"
	var proxy upstream.ProxyOptions
	if err := json.Unmarshal(b.ProxyRaw, &proxy); err != nil {
		return problemf(at, "invalid proxy: must be an object of reverse_proxy options: %v", err)
	}
	for _, key := range []string{"upstreams", "dynamic_upstreams"} {
		if _, ok := proxy[key]; ok {
			return problemf(at, "%s cannot be set in proxy: use match_labels or dial of the backend", key)
		}
	}
	checks, err := proxy.Object("health_checks")
	if err != nil {
		return problemf(at+".health_checks", "%v", err)
	}
	if active, ok := checks["active"]; ok && string(active) != "null" && (b.MatchLabels != nil || b.Register) {
		return problemf(at+".health_checks.active", "active health checks require static addresses, but backend %q has containers or registered instances: "+
			"remove active, and use the HEALTHCHECK of the image, the check of the registration, or health_checks.passive", b.Name)
	}
	transport, err := proxy.Object("transport")
	if err != nil {
		return problemf(at+".transport", "%v", err)
	}
	balancing, err := proxy.Object("load_balancing")
	if err != nil {
		return problemf(at+".load_balancing", "%v", err)
	}
	dial, firstByte := b.Timeouts != nil && b.Timeouts.Dial != 0, b.Timeouts != nil && b.Timeouts.FirstByte != 0
	for _, twice := range []struct {
		set     bool
		option  string
		options upstream.ProxyOptions
		key     string
	}{
		{b.LBPolicyRaw != nil, "lb_policy", balancing, "selection_policy"},
		{b.Retries != nil, "retries", balancing, "retries"},
		{dial, "timeouts.dial", transport, "dial_timeout"},
		{firstByte, "timeouts.first_byte", transport, "response_header_timeout"},
		{b.Scheme == "h2c", "scheme", transport, "versions"},
		{b.Scheme == "http", "scheme: http", transport, "tls"},
	} {
		if _, ok := twice.options[twice.key]; ok && twice.set {
			return problemf(at, "%s and %s of the backend cannot be combined: remove one of the two", twice.key, twice.option)
		}
	}
	return nil
}

// fieldProblem converts an error of another package to a Problem. If the error names a
// field, the path includes the field.
func fieldProblem(path string, err error) *Problem {
	var field interface{ Field() string }
	if errors.As(err, &field) && field.Field() != "" {
		path += "." + field.Field()
	}
	return problemf(path, "%v", err)
}
