package access

import (
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/policy"
)

// KeyRateLimit bounds how often a key is used.
type KeyRateLimit struct {
	// How many requests may come with the key within any window, 1 or more.
	// Required.
	Requests int `json:"requests,omitempty" caddyfile:"arg"`

	// How long a window is. Default: 60s.
	Window caddy.Duration `json:"window,omitempty" caddyfile:"arg"`
}

const defaultKeyWindow = time.Minute

// window is how long a window is.
func (l *KeyRateLimit) window() time.Duration {
	if l.Window == 0 {
		return defaultKeyWindow
	}
	return time.Duration(l.Window)
}

func (l *KeyRateLimit) check() *policy.OptionError {
	if l.Requests < 1 {
		return policy.Optionf("requests", "a rate_limit of %d requests lets nobody in: use 1 or more, or remove the key", l.Requests)
	}
	if l.Window < 0 {
		return policy.Optionf("window", "window %s is in the past: use a duration such as 60s", time.Duration(l.Window))
	}
	return nil
}
