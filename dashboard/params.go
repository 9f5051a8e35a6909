package dashboard

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/options"
)

// pageParams holds the query parameters of the page.
type pageParams struct {
	timeRange
	gateway, service, route string // empty: all
	still                   bool   // disables automatic refresh
}

// defaultRange is the default of the range parameter.
const defaultRange = "1h"

var paramNames = []string{"range", "gateway", "service", "route", "refresh"}

// parseParams parses the query string of the page.
func parseParams(raw string) (params pageParams, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return params, fmt.Errorf("invalid query: %w", err)
	}
	for name, given := range values {
		switch {
		case !slices.Contains(paramNames, name):
			return params, fmt.Errorf("unknown parameter %q%s: use %s", name, options.Suggest(name, paramNames), strings.Join(paramNames, ", "))
		case len(given) > 1:
			return params, fmt.Errorf("duplicate parameter %s: must be set once, not %d times", name, len(given))
		}
	}
	name := defaultRange
	if values.Has("range") {
		name = values.Get("range")
	}
	i := slices.IndexFunc(timeRanges, func(r timeRange) bool { return r.name == name })
	if i < 0 {
		names := make([]string, len(timeRanges))
		for i, r := range timeRanges {
			names[i] = r.name
		}
		return params, fmt.Errorf("unknown range %q: use %s", name, strings.Join(names, ", "))
	}
	params.timeRange = timeRanges[i]
	params.gateway, params.service, params.route = values.Get("gateway"), values.Get("service"), values.Get("route")
	switch text := values.Get("refresh"); {
	case text == "off":
		params.still = true
	case text != "on" && values.Has("refresh"):
		return params, fmt.Errorf("invalid refresh %q: must be on or off", text)
	}
	return params, nil
}

// query returns the query string for the parameters.
func (params pageParams) query() string {
	values := url.Values{"range": {params.name}}
	for key, value := range map[string]string{"gateway": params.gateway, "service": params.service, "route": params.route} {
		if value != "" {
			values.Set(key, value)
		}
	}
	if params.still {
		values.Set("refresh", "off")
	}
	return "?" + values.Encode()
}

// filter returns the filter for queries of the usage store.
func (params pageParams) filter() (f store.Filter) {
	only := func(name string) []string {
		if name == "" {
			return nil
		}
		return []string{name}
	}
	return store.Filter{Gateways: only(params.gateway), Services: only(params.service), Routes: only(params.route)}
}

// concerns reports whether the filters match a service and a route.
func (params pageParams) concerns(service, route string) bool {
	return (params.service == "" || params.service == service) && (params.route == "" || params.route == route)
}
