package caddyfile

import (
	"encoding/json"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/gateway"
	"github.com/rgate/rgate/gateway/operations"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// Print converts rgate YAML to a formatted Caddyfile, and verifies that it adapts to
// the same JSON. It ignores OverridePort. If a value is not supported in a Caddyfile or
// by Print, it returns an *Error with the line and the remedy.
func Print(yaml []byte, filename string) ([]byte, error) {
	doc, r, err := read(yaml, filename)
	if err != nil {
		return nil, err
	}
	p := &printer{reader: r}
	if err := p.document(doc); err != nil {
		return nil, err
	}
	if err := p.verify(doc); err != nil {
		return nil, err
	}
	return p.text(), nil
}

// printer writes the lines of a Caddyfile and records the path of the value on each
// line.
type printer struct {
	*reader
	global []string // the lines of the global options
	site   []string
	paths  []string // the value's path for each line of the site
	indent int
	err    error // the first error
}

// text returns the Caddyfile: the global options with extra, then the site.
func (p *printer) text(extra ...string) []byte {
	var b strings.Builder
	if global := slices.Concat(p.global, extra); len(global) > 0 {
		b.WriteString("{\n\t" + strings.Join(global, "\n\t") + "\n}\n\n")
	}
	b.WriteString(strings.Join(p.site, "\n") + "\n")
	return []byte(b.String())
}

// line writes a line of words, quoted if needed. The caller omits empty optional words.
func (p *printer) line(path, keyword string, words ...string) {
	p.write(path, keyword, words, "")
}

// block writes a line with an opening brace, the lines of body, and a closing brace.
func (p *printer) block(path, keyword string, words []string, body func()) {
	p.write(path, keyword, words, " {")
	p.indent++
	body()
	p.indent--
	p.write(path, "}", nil, "")
}

func (p *printer) write(path, keyword string, words []string, end string) {
	line := strings.Repeat("\t", p.indent) + keyword
	for _, word := range words {
		quoted, err := quote(word)
		if err != nil {
			p.fails(path, "%v", err)
		}
		line += " " + quoted
	}
	p.site = append(p.site, line+end)
	for range strings.Count(line, "\n") + 1 {
		p.paths = append(p.paths, path)
	}
}

func (p *printer) fails(path, format string, args ...any) {
	if p.err == nil {
		p.err = p.failAt(path, format, args...)
	}
}

// document writes the global options and the site.
func (p *printer) document(doc *document) error {
	if doc.Admin != "" {
		quoted, err := quote(doc.Admin)
		if err != nil {
			return p.failAt("admin", "%v", err)
		}
		p.global = append(p.global, "admin "+quoted)
	}
	p.shutdown(doc)
	p.server(doc.Server, doc.expected)
	if doc.AccessLog {
		handler, err := moduleObject(&doc.Gateway, "handler", "rgate")
		if err != nil {
			return err
		}
		p.secretless(policy.SecretsIn(handler))
	}
	address, hosts := p.addresses(doc.Listen)
	if p.err != nil {
		return p.err
	}
	p.block("listen", address, nil, func() {
		if len(hosts) > 0 {
			p.line("listen", "bind", hosts...)
		}
		if doc.AccessLog {
			p.line("access_log", "log")
		}
		p.block("", "rgate", nil, func() { p.gateway(&doc.Gateway) })
	})
	return p.err
}

// addresses splits the listen addresses into a site address and the hosts of its bind
// directive. All addresses must have the same port, because a Caddyfile creates a
// server per port.
func (p *printer) addresses(listen []string) (address string, hosts []string) {
	ports := make(map[string]bool)
	for i, listen := range listen {
		network, host, port, err := caddy.SplitNetworkAddress(listen)
		switch {
		case err == nil && caddy.IsUnixNetwork(network) && !caddy.IsFdNetwork(network):
			host, port = listen, ""
		case err != nil || network != "" || strings.ContainsAny(port, "{-"):
			p.fails(element("listen", i), "printing does not support the address %q: use host:port here, and change the Caddyfile by hand", listen)
		}
		ports[port] = true
		hosts = append(hosts, host)
	}
	if len(ports) > 1 {
		p.fails("listen", "a Caddyfile has a separate server for each port, not one server for %s: use one port here, and add the others to the Caddyfile by hand",
			strings.Join(listen, " and "))
	}
	for port := range ports {
		address = net.JoinHostPort("", port)
	}
	if address == ":" {
		address = "http://"
	}
	if slices.Equal(hosts, []string{""}) {
		hosts = nil
	}
	return address, hosts
}

func (p *printer) gateway(g *gateway.Gateway) {
	p.option("name", "name", g.Name)
	for i, endpoint := range g.Docker {
		at := element("docker", i)
		words := nonEmpty(endpoint.Host)
		if endpoint.Host = ""; reflect.ValueOf(endpoint).IsZero() {
			p.line(at, "docker", words...)
			continue
		}
		p.block(at, "docker", words, func() {
			p.option(at+".cert_path", "cert_path", endpoint.CertPath)
			p.list(at+".routed", "routed", endpoint.Routed)
			p.timeout(at+".drain", "drain", endpoint.Drain)
			signals := make([]string, len(endpoint.StopSignals))
			for i, signal := range endpoint.StopSignals {
				signals[i] = signal.String()
			}
			p.list(at+".stop_signals", "stop_signals", signals)
			p.duration(at+".trust", "trust", endpoint.Trust)
		})
	}
	p.stats(g)
	p.operations(g.Operations)
	p.defaultResponse(g.DefaultResponse)
	if g.TrustIdentity {
		p.line("trust_identity", "trust_identity")
	}
	p.list("keep_fields", "keep_fields", g.KeepFields)
	if g.MaxHops != nil {
		p.line("max_hops", "max_hops", strconv.Itoa(*g.MaxHops))
	}
	if g.StreamCloseDelay != 0 {
		p.line("stream_close_delay", "stream_close_delay", formatDuration(g.StreamCloseDelay.Written()))
	}
	p.list("legacy", "legacy", g.Legacy)
	for i, backend := range g.Backends {
		at := element("backends", i)
		p.block(at, "backend", []string{backend.Name}, func() { p.backend(at, backend) })
	}
	p.handlers("handle", g.HandlersRaw)
	p.routes("", g.Routes, g.Groups)
}

func (p *printer) stats(g *gateway.Gateway) {
	if g.Stats == nil {
		return
	}
	path, words := g.Stats.Path, []string(nil)
	switch {
	case g.Stats.Disabled:
		words = []string{adminOff}
	case path != "":
		words, path = []string{path}, ""
	}
	if path == "" && g.Stats.Allow == nil && g.Stats.Interval == 0 && len(g.Stats.SinksRaw) == 0 {
		p.line("stats", "stats", words...)
		return
	}
	p.block("stats", "stats", words, func() {
		p.option("stats.path", "path", path)
		p.list("stats.allow", "allow", g.Stats.Allow)
		p.list("stats.hosts", "hosts", g.Stats.Hosts)
		p.duration("stats.interval", "interval", g.Stats.Interval)
		for i, raw := range g.Stats.SinksRaw {
			p.module(element("stats.sinks", i), "sink", sinks, raw)
		}
	})
}

func (p *printer) operations(o *operations.Config) {
	if o == nil {
		return
	}
	if o.Allow == nil && o.Hosts == nil && o.HandlersRaw == nil && o.Registration == nil {
		p.line("operations", "operations", nonEmpty(o.Path)...)
		return
	}
	p.block("operations", "operations", nonEmpty(o.Path), func() {
		p.list("operations.allow", "allow", o.Allow)
		p.list("operations.hosts", "hosts", o.Hosts)
		if c := o.Registration; c != nil && c.TTL != 0 {
			p.duration("operations.registration", "registration", c.TTL)
		} else if c != nil {
			p.line("operations.registration", "registration")
		}
		p.handlers("operations.handle", o.HandlersRaw)
	})
}

func (p *printer) defaultResponse(response *gateway.DefaultResponse) {
	if response == nil {
		return
	}
	status := ""
	if response.StatusCode != 0 {
		status = strconv.Itoa(response.StatusCode)
	}
	if len(response.Body) == 3 && status == "" {
		// A single argument of three digits is parsed as the status.
		p.block("default_response", "default_response", nil, func() { p.line("default_response.body", "body", response.Body) })
		return
	}
	at := "default_response.status_code"
	if response.Body != "" {
		at = "default_response.body"
	}
	p.line(at, "default_response", nonEmpty(response.Body, status)...)
}

func (p *printer) backend(path string, b *gateway.Backend) {
	labels := make([]string, 0, len(b.MatchLabels))
	for key, value := range b.MatchLabels {
		labels = append(labels, key+"="+value)
	}
	slices.Sort(labels)
	if len(labels) > 0 {
		p.line(path+".match_labels", "match_labels", labels...)
	}
	if len(b.Dial) > 0 {
		p.line(path+".dial", "dial", b.Dial...)
	}
	if b.Register {
		p.line(path+".register", "register")
	}
	if b.Port != 0 {
		p.line(path+".port", "port", strconv.Itoa(b.Port))
	}
	p.option(path+".network", "network", b.Network)
	p.option(path+".scheme", "scheme", b.Scheme)
	p.option(path+".health", "health", b.Health)
	if b.HostPort {
		p.line(path+".host_port", "host_port")
	}
	if b.LBPolicyRaw != nil {
		p.module(path+".lb_policy", "lb_policy", policies, b.LBPolicyRaw)
	}
	if len(b.Upgrades) > 0 {
		p.line(path+".upgrades", "upgrades", b.Upgrades...)
	}
	if b.Retries != nil {
		p.line(path+".retries", "retries", strconv.Itoa(*b.Retries))
	}
	p.retryBudget(path+".retry_budget", b.RetryBudget)
	p.timeouts(path+".timeouts", b.Timeouts)
	if b.ProxyRaw != nil {
		p.fails(path+".proxy", "printing does not support proxy: remove it here, and add its subdirectives of reverse_proxy to a 'proxy' block of the Caddyfile by hand")
	}
	if len(b.AroundRaw) > 0 {
		p.block(path+".around", "around", nil, func() { p.handlers(path+".around", b.AroundRaw) })
	}
}

func (p *printer) timeouts(path string, t *gateway.Timeouts) {
	if t == nil {
		return
	}
	p.block(path, "timeouts", nil, func() {
		p.timeout(path+".dial", "dial", t.Dial)
		p.timeout(path+".first_byte", "first_byte", t.FirstByte)
		p.timeout(path+".total", "total", t.Total)
	})
}

func (p *printer) retryBudget(path string, o *gateway.RetryBudget) {
	if o == nil {
		return
	}
	ratio, perSecond := "", ""
	if o.Ratio != nil {
		ratio = strconv.FormatFloat(*o.Ratio, 'g', -1, 64)
	}
	if o.MinPerSecond != nil {
		perSecond = strconv.Itoa(*o.MinPerSecond)
	}
	if ratio == "" && perSecond != "" {
		p.block(path, "retry_budget", nil, func() { p.option(path+".min_per_second", "min_per_second", perSecond) })
		return
	}
	p.line(path, "retry_budget", nonEmpty(ratio, perSecond)...)
}

// handlers writes handlers of rgate. Their subdirectives have the names of the JSON
// keys.
func (p *printer) handlers(path string, list []json.RawMessage) {
	for i, raw := range list {
		var handler struct {
			Handler string `json:"handler"`
		}
		if err := json.Unmarshal(raw, &handler); err != nil || !strings.HasPrefix(handler.Handler, "rgate_") {
			p.fails(element(path, i), "printing does not support the handler %s: remove it here, and add its directive to the Caddyfile by hand", handler.Handler)
			return
		}
		p.module(element(path, i), "", handlers, raw)
	}
}

// option writes a subdirective with one argument if value is not empty.
func (p *printer) option(path, keyword, value string) {
	if value != "" {
		p.line(path, keyword, value)
	}
}

func (p *printer) duration(path, keyword string, value caddy.Duration) {
	if value != 0 {
		p.line(path, keyword, formatDuration(value))
	}
}

// timeout writes a timeout if it is set.
func (p *printer) timeout(path, keyword string, value options.Timeout) {
	if value != 0 {
		p.line(path, keyword, formatDuration(value.Written()))
	}
}

// formatDuration formats a duration without trailing zero units: 1m, not 1m0s.
func formatDuration(d caddy.Duration) string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = text[:len(text)-2]
	}
	if strings.HasSuffix(text, "h0m") {
		text = text[:len(text)-2]
	}
	return text
}

func nonEmpty(words ...string) []string {
	return slices.DeleteFunc(words, func(word string) bool { return word == "" })
}
