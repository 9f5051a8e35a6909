package ratelimit

import "github.com/caddyserver/caddy/v2"

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
