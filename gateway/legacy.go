package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

// Names of the behaviours that the option legacy restores. Policies check them with
// policy.Scope.HasLegacy.
const (
	legacyContainerHost    = "container_host"
	legacyEnvironmentProxy = "environment_proxy"
	legacyFailedDials      = "ignored_failed_dials"
	legacyGRPCErrors       = "grpc_http_errors"
	legacyHandlersFirst    = "handlers_before_authentication"
	legacyStandInsFirst    = "cache_before_handlers"
)

// legacyBehaviours maps the names of restorable behaviours to their descriptions.
// docs/guide/yaml.md contains the same table.
var legacyBehaviours = map[string]string{
	legacyHandlersFirst:            "Handlers of `handle` that may respond run in the order of the list, before authentication that is later in the list or on an inner level.",
	legacyStandInsFirst:            "`cache`, `coalesce` and `fallback` of an outer level respond before the handlers of `handle` on inner levels run.",
	legacyGRPCErrors:               "gRPC clients get the gateway's own errors as HTTP statuses, without `grpc-status`.",
	policy.LegacyUncountedFailures: "Failed authentications do not count against a `rate_limit` by the client's address.",
	policy.LegacyUnreadableJSON:    "`transform` forwards bodies that are declared as JSON but cannot be parsed unchanged. The same applies to messages with an invalid `Content-Type`.",
	policy.LegacyUnlistedFields:    "`cache` ignores negotiated and unknown request fields and credentials, except `Authorization`, `Proxy-Authorization`, `X-User-ID`, `X-Consumer-*`, the fields in `Vary`, and with `ttl` also `Cookie`.",
	legacyEnvironmentProxy:         "Backends are dialed through the proxy in the environment variables HTTP_PROXY, HTTPS_PROXY and NO_PROXY.",
	legacyContainerHost:            "Containers and registered instances with HTTPS get their own address as `Host`, instead of the client's.",
	legacyFailedDials:              "An upstream is selected as often as the others, even if the last dial failed.",
}

// LegacyBehaviours returns the names that the option legacy accepts, each with a
// description.
func LegacyBehaviours() map[string]string { return maps.Clone(legacyBehaviours) }

// checkLegacy reports the first unknown or repeated name in the option legacy.
func (g *Gateway) checkLegacy() error {
	known := slices.Sorted(maps.Keys(legacyBehaviours))
	for i, name := range g.Legacy {
		at := fmt.Sprintf("legacy[%d]", i)
		if _, ok := legacyBehaviours[name]; !ok {
			remedy := options.Suggest(name, known)
			if remedy == "" {
				remedy = ": use " + strings.Join(known, ", ")
			}
			return problemf(at, "unknown legacy behaviour %q%s", name, remedy)
		}
		if slices.Contains(g.Legacy[:i], name) {
			return problemf(at, "duplicate legacy behaviour %q: remove one of the two", name)
		}
	}
	return nil
}

// restores reports whether the option legacy contains a behaviour.
func (g *Gateway) restores(name string) bool { return slices.Contains(g.Legacy, name) }
