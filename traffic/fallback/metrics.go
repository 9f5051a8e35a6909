package fallback

import "github.com/rgate/rgate/policy"

// fallbacks counts the requests that a fallback was served for, by fallback.
var fallbacks = policy.NewRequestCounter("rgate_fallback_requests_total",
	"Total requests that a fallback responded to.", "by")
