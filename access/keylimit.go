package access

import (
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/policy"
)

// KeyRateLimit bounds how often a key is used.
type KeyRateLimit struct {
	// How many requests may come with the key in any span of time that is as long as
	// the window, 1 to 1000000000. Required.
	Requests int `json:"requests,omitempty" caddyfile:"arg"`

	// How long a window is, up to 366 days. Default: 60s.
	Window caddy.Duration `json:"window,omitempty" caddyfile:"arg"`
}

const defaultKeyWindow = time.Minute

// limit is what requests are judged by.
func (l *KeyRateLimit) limit() limit {
	window := time.Duration(l.Window)
	if window == 0 {
		window = defaultKeyWindow
	}
	return limit{int64(l.Requests), window}
}

func (l *KeyRateLimit) check() *policy.OptionError {
	if l.Requests < 1 || l.Requests > maxRequests {
		return policy.Optionf("requests", "a rate_limit of %d requests is out of range: use 1 to %d, or remove the key to let nobody in with it", l.Requests, maxRequests)
	}
	if l.Window < 0 || time.Duration(l.Window) > maxWindow {
		return policy.Optionf("window", "a rate_limit's window of %s is out of range: use a duration such as 60s, up to 366 days", time.Duration(l.Window))
	}
	return nil
}

var errKeyRate = errors.New("the API key is used too often")

// keyCounts has the one limiter that counts the requests of keys, for as long as
// a configuration has keys: counts outlive a reload.
var keyCounts = caddy.NewUsagePool()

const theKeyCounts = "keys"

// keyCounter counts the requests of keys.
type keyCounter struct{ *limiter }

// countKeys returns the process's counter, which is to be released.
func countKeys() (keyCounter, error) {
	value, _, err := keyCounts.LoadOrNew(theKeyCounts, func() (caddy.Destructor, error) {
		return keyCounter{newLimiter(defaultMaxKeys)}, nil
	})
	if err != nil {
		return keyCounter{}, err
	}
	return value.(keyCounter), nil
}

func releaseKeyCounts() error {
	_, err := keyCounts.Delete(theKeyCounts)
	return err
}

// Destruct implements caddy.Destructor.
func (keyCounter) Destruct() error { return nil }

// take counts a request that came with a key, and decides whether it passes.
func (c keyCounter) take(held *heldKey) decision {
	return c.limiter.take(uptime(), c.hashBytes(0, held.digest[:]), 1, held.limit)
}
