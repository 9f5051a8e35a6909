package caddyfile

// The policies used in golden files.
import (
	_ "github.com/rgate/rgate/access/apikey"
	_ "github.com/rgate/rgate/access/cors"
	_ "github.com/rgate/rgate/access/ipfilter"
	_ "github.com/rgate/rgate/access/jwt"
	_ "github.com/rgate/rgate/access/ratelimit"
	_ "github.com/rgate/rgate/access/requestid"
	_ "github.com/rgate/rgate/access/require"
	_ "github.com/rgate/rgate/access/security"
	_ "github.com/rgate/rgate/balance"
	_ "github.com/rgate/rgate/traffic/cache"
	_ "github.com/rgate/rgate/traffic/circuitbreaker"
	_ "github.com/rgate/rgate/traffic/coalesce"
	_ "github.com/rgate/rgate/traffic/concurrency"
	_ "github.com/rgate/rgate/traffic/fallback"
	_ "github.com/rgate/rgate/traffic/transform"
)
