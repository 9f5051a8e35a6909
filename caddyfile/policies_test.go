package caddyfile

// The policies that golden files name.
import (
	_ "github.com/rgate/rgate/access"
	_ "github.com/rgate/rgate/balance"
	_ "github.com/rgate/rgate/traffic/cache"
	_ "github.com/rgate/rgate/traffic/circuitbreaker"
	_ "github.com/rgate/rgate/traffic/coalesce"
	_ "github.com/rgate/rgate/traffic/concurrency"
	_ "github.com/rgate/rgate/traffic/fallback"
	_ "github.com/rgate/rgate/traffic/transform"
)
