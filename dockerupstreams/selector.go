package dockerupstreams

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/options"
)

// The values of the option health.
const (
	healthGate = "healthy"
	healthAny  = "any"
)

// The values of the option scheme.
const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	schemeH2C   = "h2c"
)

// The values of the option include.
const (
	includeOneOffs        = "one_offs"
	includeBuildSteps     = "build_steps"
	includeLocalAddresses = "local_addresses"
)

var (
	schemes  = []string{schemeHTTP, schemeHTTPS, schemeH2C}
	healths  = []string{healthGate, healthAny}
	includes = []string{includeOneOffs, includeBuildSteps, includeLocalAddresses}
)

// Selector selects the containers of a backend and configures how to reach them. Its
// options take precedence over the labels `rgate.port`, `rgate.network` and
// `rgate.scheme` of the containers.
type Selector struct {
	// The labels a container must have, with exactly these values. Other labels are
	// ignored. Required.
	MatchLabels map[string]string `json:"match_labels,omitempty"`

	// The port inside the container, 1 to 65535. Default: the container's `rgate.port`
	// label, else its only exposed TCP port.
	Port int `json:"port,omitempty"`

	// The Docker network through which to reach the container. The project prefix of a
	// Compose network may be omitted. Default: the `rgate.network` label, else a
	// network that the gateway shares with the container, else the first network by
	// name.
	Network string `json:"network,omitempty"`

	// The scheme of requests to the container: `http`, `https` or `h2c`. Default: the
	// `rgate.scheme` label, else `http`.
	Scheme string `json:"scheme,omitempty"`

	// The required health: `healthy` (the container's health check passes, or it has
	// none) or `any` (health checks are ignored). Default: `healthy`.
	Health string `json:"health,omitempty"`

	// Whether to dial the port that the engine publishes on its host instead of the
	// container's address. Use it if the gateway cannot reach the container networks,
	// such as on macOS or on another machine. Default: false.
	HostPort bool `json:"host_port,omitempty"`

	// The containers to include that are excluded by default: `one_offs` (containers of
	// `docker compose run`), `build_steps` (containers of a classic `docker build`) and
	// `local_addresses` (containers whose label `rgate.address` is a loopback or
	// link-local address, or an address on which the gateway listens). Default: none.
	Include []string `json:"include,omitempty"`

	// If set, the scheme of all containers. Containers with another `rgate.scheme`
	// label are rejected.
	onlyScheme string
}

// Endpoint is the address of a Docker engine.
type Endpoint struct {
	// The engine's address: `unix:///path`, `npipe:////./pipe/…`, `tcp://host:port`,
	// `http://` or `https://`. Default: the DOCKER_HOST environment variable, else the
	// platform's default socket.
	Host string `json:"host,omitempty" caddyfile:"arg"`

	// The directory of `ca.pem`, `cert.pem` and `key.pem` for mutual TLS with the
	// engine over TCP. Default: if DOCKER_TLS_VERIFY is set, the DOCKER_CERT_PATH
	// environment variable, else `~/.docker`.
	CertPath string `json:"cert_path,omitempty" caddyfile:"arg"`

	// The networks of a remote engine whose addresses the gateway can reach, such as by
	// a route or a VPN. `*` is all networks. The address of a container in another
	// network may belong to a different machine near the gateway. Containers without
	// such a network require `host_port`. Default: none. Ignored for a local engine.
	Routed []string `json:"routed,omitempty"`

	// The maximum time during which a container receives no requests after it was sent
	// a signal that stops it. The time ends early if the container starts, is unpaused
	// or becomes healthy. If the container still runs afterwards, it receives requests
	// again. Default: 5m. 0: containers receive requests until they end.
	Drain options.Timeout `json:"drain,omitempty"`

	// The signals that stop a container, in addition to TERM, INT, QUIT, ABRT, KILL and
	// RTMIN+3, the signals in the container's label `rgate.stop_signals`, and the stop
	// signal of its image. Names or numbers. Default: none.
	StopSignals []Signal `json:"stop_signals,omitempty"`

	// The maximum time during which containers of an unreachable engine receive
	// requests. Afterwards, they receive none until the engine responds. Default: 0,
	// no limit.
	Trust caddy.Duration `json:"trust,omitempty"`
}

// Target is a container that can receive requests, with its address.
type Target struct {
	// The address to dial, as host:port.
	Dial string
	// The container's name, without the engine's leading slash.
	Container string
	// The container's ID.
	ID string
	// The scheme: `http`, `https` or `h2c`.
	Scheme string
	// The weight for weighted selection policies. Default: 1.
	Weight int
	// The maximum number of requests in flight. 0: no limit.
	MaxRequests int
	// Whether the address is from the label `rgate.address`.
	Labeled bool
	// The address with additional digits in the port, derived from the ID. It identifies
	// the container in a connection pool: see dialing.UsePool.
	Pool string
}

// optionError reports an invalid option.
type optionError struct{ field, message string }

func (e *optionError) Error() string { return e.message }

// Field returns the option's name in JSON.
func (e *optionError) Field() string { return e.field }

func optionErrorf(field, format string, args ...any) error {
	return &optionError{field, fmt.Sprintf(format, args...)}
}

// Validate returns the first error in s. The error has a method Field that returns the
// JSON name of the invalid option.
func (s Selector) Validate() error {
	if len(s.MatchLabels) == 0 {
		return optionErrorf("match_labels", "match_labels is required: "+
			"set at least one label, such as app=web")
	}
	for _, name := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if err := checkLabel(name, s.MatchLabels[name]); err != nil {
			return err
		}
	}
	if s.Port < 0 || s.Port > 65535 {
		return optionErrorf("port", "invalid port %d: must be from 1 to 65535", s.Port)
	}
	if s.Scheme != "" && !slices.Contains(schemes, s.Scheme) {
		return optionErrorf("scheme", "unknown scheme %q: use %s", s.Scheme, oneOf(schemes))
	}
	if s.Health != "" && !slices.Contains(healths, s.Health) {
		return optionErrorf("health", "unknown health %q: use %s", s.Health, oneOf(healths))
	}
	for _, name := range s.Include {
		if !slices.Contains(includes, name) {
			return optionErrorf("include", "unknown include %q: use %s", name, oneOf(includes))
		}
	}
	return nil
}

// requestPlaceholder matches the placeholders of a request or a connection, which have no
// value when containers are selected.
var requestPlaceholder = regexp.MustCompile(`\{(http|rgate|tls|l4)\.[^{}]+\}`)

// checkLabel returns an error if no container can have the label.
func checkLabel(name, value string) error {
	problem := ""
	switch {
	case strings.TrimSpace(name) == "":
		return optionErrorf("match_labels", "invalid match_labels: the label with the value %q has no name: set a name, such as app", value)
	case strings.HasSuffix(name, "!"):
		problem = "must be name=value, containers cannot be excluded by label: use a label that only the wanted containers have"
	case value == "*":
		problem = "must be a value, there are no wildcards: use a label that has the same value on all wanted containers"
	case requestPlaceholder.MatchString(value):
		problem = "must not depend on the request: use a placeholder such as {env.NAME}, or a backend for each value"
	case strings.ContainsAny(name, "{}"):
		problem = "must not have placeholders in the name: use placeholders in the value only"
	default:
		return nil
	}
	return optionErrorf("match_labels", "invalid match_labels %s=%s: %s", name, value, problem)
}

// AllowsLocalAddresses reports whether containers may have addresses that lead back to
// the gateway.
func (s *Selector) AllowsLocalAddresses() bool { return s.includes(includeLocalAddresses) }

// includes reports whether the option include contains name.
func (s *Selector) includes(name string) bool { return slices.Contains(s.Include, name) }

// matches reports whether labels contain all s.MatchLabels.
func (s *Selector) matches(labels map[string]string) bool {
	for key, want := range s.MatchLabels {
		if got, ok := labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// key returns a string that is equal for equivalent selectors.
func (s Selector) key() string {
	if s.Health == "" {
		s.Health = healthGate
	}
	key, _ := json.Marshal(s) // cannot fail; map keys are sorted
	return s.onlyScheme + string(key)
}

// oneOf formats words as "a, b or c".
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
