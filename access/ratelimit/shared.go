package ratelimit

import (
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/monotime"
	"github.com/rgate/rgate/internal/options"
)

// Shared limits requests by keys of other policies, such as API keys. It uses the table
// that rate limits share, so counts survive reloads.
type Shared struct{ limiter *limiter }

// AcquireShared returns the shared limiter. The caller must release it.
func AcquireShared() (*Shared, error) {
	l, err := acquireLimiter(sharedTable)
	if err != nil {
		return nil, err
	}
	return &Shared{l}, nil
}

// Release releases the shared limiter. Requests in flight can still use it.
func (s *Shared) Release() error { return releaseLimiter(sharedTable) }

// Allow counts a request under a key and reports whether it is within the limit. It sets
// the RateLimit header fields, and Retry-After if the request must be rejected. The key
// must be unique, for example a cryptographic hash.
func (s *Shared) Allow(header http.Header, key []byte, l Limit) bool {
	d := s.limiter.take(monotime.Now(), s.limiter.hashBytes(0, key), 1, limit{l.Requests, time.Duration(l.Window)})
	setHeaders(header, &d, strconv.FormatInt(l.Requests, 10))
	if !d.admitted {
		setRetryAfter(header, d.after)
	}
	return d.admitted
}

// Check returns the first error in the limit. path is the prefix of option names in the
// error.
func (l Limit) Check(path string) *options.Error { return checkLimit(path, l.Requests, l.Window) }

// tables holds the limiters of the process: a shared one, and one for each policy with
// max_keys. They survive reloads.
var tables = caddy.NewUsagePool()

type tableKey struct {
	identity string // identifies a policy with a separate table
	maxKeys  int
}

// sharedTable is the key of the limiter that policies share. Each policy has its own
// space in it; see hasher.hash.
var sharedTable = tableKey{maxKeys: defaultMaxKeys}

// acquireLimiter returns a limiter. The caller must release it.
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
