package status

import "slices"

// The kinds of state.
var (
	// Dependencies are the external services that the process uses.
	Dependencies Kind[Process, Dependency]

	// Services are the backends of a gateway, by its name: the response of the operations
	// endpoint `services`, to be read with Decode.
	Services Kind[string, any]

	// Quotas are lists of the quotas of a gateway, by its name, to be read with Decode.
	Quotas Kind[string, any]

	// CacheHits count the responses of a gateway from caches, by its name.
	CacheHits Kind[string, uint64]

	// CircuitBreakers are the circuit breakers of a backend.
	CircuitBreakers Kind[Backend, CircuitBreaker]

	// ConcurrencyLimits are the concurrency limits of a backend.
	ConcurrencyLimits Kind[Backend, ConcurrencyLimit]
)

// Process is the key of states that belong to the whole process.
type Process struct{}

// Backend names a backend of a gateway.
type Backend struct{ Gateway, Name string }

// Dependency is an external service that a module uses, such as a Redis.
type Dependency struct {
	Name  string // kind and address, without secrets
	Up    bool
	Error string // why it is not up
}

// The states of a circuit breaker in reports.
const (
	CircuitOpen     = "open"
	CircuitHalfOpen = "half_open"
)

// CircuitBreaker is the state of a circuit breaker.
type CircuitBreaker struct {
	Name       string            `json:"name,omitempty"`
	State      string            `json:"state,omitempty"`
	RetryAfter float64           `json:"retry_after_seconds,omitempty"`
	Containers map[string]string `json:"containers,omitempty"` // by address, without closed breakers
}

// IsOpen reports whether no request reaches the backend.
func (b *CircuitBreaker) IsOpen() bool { return b.State == CircuitOpen }

// Impairs reports whether only some requests reach the backend: the breaker is half-open,
// or that of a container at one of these addresses is not closed.
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
