package status

import "slices"

// The kinds of published state.
var (
	// Dependencies holds the external services that the process uses.
	Dependencies Kind[Process, Dependency]

	// Services holds the backends of a gateway, by gateway name, as returned by the
	// operations endpoint `services`. Read it with Decode.
	Services Kind[string, any]

	// Quotas holds lists of the quotas of a gateway, by gateway name. Read it with
	// Decode.
	Quotas Kind[string, any]

	// CacheHits holds the number of a gateway's responses from caches, by gateway name.
	CacheHits Kind[string, uint64]

	// CircuitBreakers holds the circuit breakers of a backend.
	CircuitBreakers Kind[Backend, CircuitBreaker]

	// ConcurrencyLimits holds the concurrency limits of a backend.
	ConcurrencyLimits Kind[Backend, ConcurrencyLimit]
)

// Process is the key of states that belong to the whole process.
type Process struct{}

// Backend identifies a backend of a gateway.
type Backend struct{ Gateway, Name string }

// Dependency is an external service that a module uses, such as a Redis server.
type Dependency struct {
	Name  string // type and address, without secrets
	Up    bool
	Error string // the reason why it is unavailable; empty if it is up
}

// States of a circuit breaker in reports.
const (
	CircuitClosed   = "closed"
	CircuitHalfOpen = "half_open"
	CircuitOpen     = "open"
)

// CircuitBreaker is the state of a circuit breaker.
type CircuitBreaker struct {
	Name       string            `json:"name,omitempty"`
	State      string            `json:"state,omitempty"`
	RetryAfter float64           `json:"retry_after_seconds,omitempty"`
	Containers map[string]string `json:"containers,omitempty"` // state by address; closed breakers are omitted
}

// IsOpen reports whether the breaker blocks all requests to the backend.
func (b *CircuitBreaker) IsOpen() bool { return b.State == CircuitOpen }

// Impairs reports whether the breaker blocks some of the requests to the backend. It is
// then half-open, or the breaker of a container with one of these addresses is not
// closed.
func (b *CircuitBreaker) Impairs(addresses []string) bool {
	return b.State == CircuitHalfOpen ||
		slices.ContainsFunc(addresses, func(address string) bool { return b.Containers[address] != "" })
}

// ConcurrencyLimit is the state of a concurrency limit.
type ConcurrencyLimit struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key,omitempty"`
	Max      int    `json:"max"`
	InFlight int    `json:"in_flight"`
	Queued   int    `json:"queued"`
	Rejected uint64 `json:"rejected"`
}
