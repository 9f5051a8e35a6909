package coalesce

import "github.com/rgate/rgate/policy"

// coalesced counts the requests that received the response to another request.
var coalesced = policy.NewRequestCounter("rgate_coalesced_requests_total",
	"Total requests that received the response to another request.", "")
