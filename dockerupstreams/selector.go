package dockerupstreams

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The values of `health`.
const (
	healthGate = "healthy"
	healthAny  = "any"
)

// The values of `scheme`.
const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	schemeH2C   = "h2c"
)

var (
	schemes = []string{schemeHTTP, schemeHTTPS, schemeH2C}
	healths = []string{healthGate, healthAny}
)

// Selector selects the containers of a backend, and configures how to reach them. Its
// options take precedence over the containers' labels for the same purpose (`rgate.port`,
// `rgate.network`, `rgate.scheme`).
type Selector struct {
	// The labels that a container must have, with equal values. Other labels are
	// ignored. Required: an empty selector would match every container of the engine.
	MatchLabels map[string]string `json:"match_labels,omitempty"`

	// The port that the container's process listens on, 1 to 65535. Default: the
	// container's `rgate.port` label, else the single TCP port that it exposes.
	Port int `json:"port,omitempty"`

	// The Docker network through which to reach the container. A Compose network
	// may be named without its project prefix. Default: the `rgate.network`
	// label, else a network that the gateway shares with the container, else the
	// first one by name.
	Network string `json:"network,omitempty"`

	// How to speak to the container: `http`, `https` or `h2c`. Default: the
	// `rgate.scheme` label, else `http`.
	Scheme string `json:"scheme,omitempty"`

	// Which containers receive requests: `healthy` (containers whose health check passes,
	// and those without one) or `any` (whatever the health check reports). Default:
	// `healthy`.
	Health string `json:"health,omitempty"`

	// Dials the port that the engine publishes on its host, instead of the container's
	// address: for a gateway that cannot reach the container networks, such as one on
	// macOS or on another machine. Default: false.
	HostPort bool `json:"host_port,omitempty"`

	// If set, the only supported scheme: the default of containers without one, and a
	// reason to reject those with another.
	onlyScheme string
}

// Endpoint is the address of a Docker engine.
type Endpoint struct {
	// The engine's address: `unix:///path`, `npipe:////./pipe/…`, `tcp://host:port`,
	// `http://` or `https://`. Default: the DOCKER_HOST environment variable, else
	// the platform's own socket.
	Host string `json:"host,omitempty"`

	// The folder of `ca.pem`, `cert.pem` and `key.pem`, with which the engine and the
	// gateway authenticate each other over TCP. Default: the DOCKER_CERT_PATH environment
	// variable, used if DOCKER_TLS_VERIFY is set.
	CertPath string `json:"cert_path,omitempty"`
}

// Target is a container that may receive requests, and its address.
type Target struct {
	// The host and port to dial.
	Dial string
	// The container's name, without the engine's leading slash.
	Container string
	// The container's ID.
	ID string
	// `http`, `https` or `h2c`.
	Scheme string
	// The share of requests under weighted policies. Default: 1.
	Weight int
	// The maximum number of requests in flight. 0: no limit.
	MaxRequests int
}

// optionError is an invalid value of an option.
type optionError struct{ field, message string }

func (e *optionError) Error() string { return e.message }

// Field returns the option's name in JSON.
func (e *optionError) Field() string { return e.field }

func optionErrorf(field, format string, args ...any) error {
	return &optionError{field, fmt.Sprintf(format, args...)}
}

// Validate returns the first error in s. It has a method Field, which returns the name
// of the option.
func (s Selector) Validate() error {
	if len(s.MatchLabels) == 0 {
		return optionErrorf("match_labels", "match_labels is required: "+
			"set at least one label, such as app=web")
	}
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if strings.TrimSpace(key) == "" {
			return optionErrorf("match_labels", "invalid match_labels: a label with the value %q has no name: "+
				"write it as name=value", s.MatchLabels[key])
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
	return nil
}

// matches reports whether labels contain all of s.MatchLabels.
func (s *Selector) matches(labels map[string]string) bool {
	for key, want := range s.MatchLabels {
		if got, ok := labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// key returns the same key for equivalent selectors.
func (s Selector) key() string {
	if s.Health == "" {
		s.Health = healthGate
	}
	key, _ := json.Marshal(s) // strings, numbers and a map, written in the order of its keys
	return s.onlyScheme + string(key)
}

// oneOf joins words as "a, b or c".
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
