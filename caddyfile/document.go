package caddyfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"gopkg.in/yaml.v3"

	"github.com/rgate/rgate/gateway"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

// document is the root of a configuration file: the options of a server and its
// gateway.
type document struct {
	// The addresses to listen on. Default: `:8080`.
	Listen []string `json:"listen,omitempty"`

	// The address of Caddy's admin endpoint, or `off`. Default: the CADDY_ADMIN
	// environment variable, else localhost:2019.
	Admin string `json:"admin,omitempty"`

	// Whether to log every request. Credentials are redacted. Default: false.
	AccessLog bool `json:"access_log,omitempty"`

	// The options of the HTTP server.
	Server *serverOptions `json:"server,omitempty"`

	// The maximum time that requests in flight have to complete when the process ends.
	// After it, their connections are closed. Default: 30s. 0 disables the limit.
	GracePeriod options.Timeout `json:"grace_period,omitempty"`

	// The time between the signal to end the process and the beginning of the grace
	// period, during which the server accepts new connections. Default: 0.
	ShutdownDelay caddy.Duration `json:"shutdown_delay,omitempty"`

	gateway.Gateway

	expected expectedFields
}

const adminOff = "off"

var defaultListen = []string{":8080"}

// read decodes a document from YAML. The returned reader holds the line of each value.
func read(body []byte, filename string) (*document, *reader, error) {
	r := &reader{file: displayName(filename), lines: map[string]int{"": 1}, fields: make(map[reflect.Type][]field)}
	root, err := r.parse(body)
	if err != nil {
		return nil, nil, err
	}
	tree, err := r.value(root, reflect.TypeFor[document](), namespace{}, "")
	if err != nil {
		return nil, nil, err
	}
	encoded, err := json.Marshal(tree)
	if err != nil {
		return nil, nil, r.failAt("", "the configuration cannot be encoded as JSON: %v", err)
	}
	doc := new(document)
	if err := caddy.StrictUnmarshalJSON(encoded, doc); err != nil {
		return nil, nil, r.failAt(pathOf(err), "%s", reason(err))
	}
	if err := r.check(doc); err != nil {
		return nil, nil, err
	}
	doc.expected = expected(append(r.expected, trust.ExpectedFields(&doc.Gateway)...))
	return doc, r, nil
}

// displayName returns the file name for errors.
func displayName(filename string) string {
	switch filename {
	case "":
		return "rgate.yaml"
	case "-":
		return "stdin"
	}
	return filepath.ToSlash(filename)
}

// check validates the decoded document and returns the first error.
func (r *reader) check(doc *document) error {
	if doc.Listen == nil {
		doc.Listen = defaultListen
	}
	if len(doc.Listen) == 0 {
		return r.failAt("listen", `listen has no address: add an address such as ":8080", or remove listen`)
	}
	seen := make(map[string]bool, len(doc.Listen))
	for i, address := range doc.Listen {
		at := element("listen", i)
		if seen[address] {
			return r.failAt(at, "duplicate address %q: remove one of the two", address)
		}
		seen[address] = true
		if err := checkListen(address); err != nil {
			return r.failAt(at, "invalid address %q: %v", address, err)
		}
	}
	if doc.Admin != "" && doc.Admin != adminOff {
		_, err := caddy.ParseNetworkAddressWithDefaults(doc.Admin, "tcp", 2019)
		if err != nil || strings.Contains(doc.Admin, "://") {
			return r.failAt("admin", `invalid address %q: must be an address such as "localhost:2019", or off`, doc.Admin)
		}
	}
	if err := r.checkServer(doc.Server); err != nil {
		return err
	}
	if err := r.checkShutdown(doc); err != nil {
		return err
	}
	var problem *gateway.Problem
	if err := doc.Check(); errors.As(err, &problem) {
		return r.failAt(problem.Path, "%s", problem.Text(func(other string) string {
			return fmt.Sprintf("in line %d", r.line(other))
		}))
	} else if err != nil {
		return r.failAt("", "%v", err)
	}
	return nil
}

// config returns Caddy's JSON. It equals the JSON of a Caddyfile with one site whose
// address is a port.
func (doc *document) config(listen []string) ([]byte, error) {
	handler, err := moduleObject(&doc.Gateway, "handler", "rgate")
	if err != nil {
		return nil, err
	}
	server := &caddyhttp.Server{
		Listen: listen,
		Routes: caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{handler}}},
	}
	doc.Server.apply(server)
	server.ExpectedUnderscoreHeaders, server.ExpectedDotHeaders = doc.expected.underscores, doc.expected.dots
	config := new(caddy.Config)
	if doc.AccessLog {
		server.Logs = new(caddyhttp.ServerLogConfig)
		config.Logging = secretlessLog(policy.SecretsIn(handler))
	}
	config.AppsRaw = caddy.ModuleMap{
		"http": caddyconfig.JSON(caddyhttp.App{
			GracePeriod:   caddy.Duration(doc.gracePeriod()),
			ShutdownDelay: doc.ShutdownDelay,
			Servers:       map[string]*caddyhttp.Server{"srv0": server},
		}, nil),
	}
	switch doc.Admin {
	case "":
	case adminOff:
		config.Admin = &caddy.AdminConfig{Disabled: true}
	default:
		config.Admin = &caddy.AdminConfig{Listen: doc.Admin}
	}
	return json.Marshal(config)
}

// moduleObject encodes a module and adds its name under inlineKey. Numbers are not
// decoded, so they keep their precision.
func moduleObject(module any, inlineKey, name string) (json.RawMessage, error) {
	encoded, err := json.Marshal(module)
	if err != nil {
		return nil, err
	}
	var options map[string]json.RawMessage
	if err := json.Unmarshal(encoded, &options); err != nil {
		return nil, err
	}
	options[inlineKey] = caddyconfig.JSON(name, nil)
	return json.Marshal(options)
}

// fail returns an error at the line of a node.
func (r *reader) fail(n *yaml.Node, format string, args ...any) error {
	return r.failLine(n.Line, format, args...)
}

// failAt returns an error about the value at a path, or about its nearest known
// ancestor.
func (r *reader) failAt(path string, format string, args ...any) error {
	return r.failLine(r.line(path), format, args...)
}

func (r *reader) line(path string) int {
	for {
		if line, ok := r.lines[path]; ok {
			return line
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}
