package ratelimit

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/monotime"
	"github.com/rgate/rgate/internal/options"
)

// Shared limits requests by keys of other policies, such as API keys, in the table that rate
// limits share. It outlives reloads.
type Shared struct{ limiter *limiter }

// AcquireShared returns the shared limits, which must be released.
func AcquireShared() (*Shared, error) {
	l, err := acquireLimiter(sharedTable)
	if err != nil {
		return nil, err
	}
	return &Shared{l}, nil
}

// Release releases the limits. Requests in flight can still use them.
func (s *Shared) Release() error { return releaseLimiter(sharedTable) }

// Allow counts a request of a key and reports whether it is within the limit. It sets the
// RateLimit fields of the response, and Retry-After if the request must be rejected. The
// key must be unlike all others, for example a cryptographic hash.
func (s *Shared) Allow(header http.Header, key []byte, l Limit) bool {
	d := s.limiter.take(monotime.Now(), s.limiter.hashBytes(0, key), 1, limit{l.Requests, time.Duration(l.Window)})
	setHeaders(header, &d, strconv.FormatInt(l.Requests, 10))
	if !d.admitted {
		setRetryAfter(header, d.after)
	}
	return d.admitted
}

// Check reports the first error in the limit, whose options have names that begin with path.
func (l Limit) Check(path string) *options.Error { return checkLimit(path, l.Requests, l.Window) }

// tables are the limiters of the process: a shared one, and those of policies with
// max_keys. They outlive reloads.
var tables = caddy.NewUsagePool()

type tableKey struct {
	identity string // of a policy with a table of its own
	maxKeys  int
}

// sharedTable is the limiter that policies share, each in a space of its own (see
// hasher.hash).
var sharedTable = tableKey{maxKeys: defaultMaxKeys}

// acquireLimiter returns a limiter, which must be released.
func acquireLimiter(key tableKey) (*limiter, error) {
	l, _, err := tables.LoadOrNew(key, func() (caddy.Destructor, error) { return newLimiter(key.maxKeys), nil })
	if err != nil {
		return nil, err
	}
	return l.(*limiter), nil
}

func releaseLimiter(key tableKey) error {
	_, err := tables.Delete(key)
	return err
}

// Destruct implements caddy.Destructor.
func (*limiter) Destruct() error { return nil }
