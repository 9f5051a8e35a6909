package dashboard

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/rgate/rgate/bandwidth"
	"github.com/rgate/rgate/policy"
)

// ask is what somebody wants to see.
type ask struct {
	reach
	gateway, service, route string // empty: all of them
	still                   bool   // the page shall not refresh itself
}

// usual is the reach of a page that none is asked of.
const usual = "1h"

var params = []string{"range", "gateway", "service", "route", "refresh"}

// parseAsk reads the query of an address. Its error says what would be right.
func parseAsk(raw string) (a ask, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return a, fmt.Errorf("reading the query: %w", err)
	}
	for name, given := range values {
		switch {
		case !slices.Contains(params, name):
			return a, fmt.Errorf("reading the query: there is no parameter %q%s; use %s", name, policy.Suggest(name, params), strings.Join(params, ", "))
		case len(given) > 1:
			return a, fmt.Errorf("reading %s: it is given %d times; give it once", name, len(given))
		}
	}
	name := usual
	if values.Has("range") {
		name = values.Get("range")
	}
	i := slices.IndexFunc(reaches, func(r reach) bool { return r.name == name })
	if i < 0 {
		names := make([]string, len(reaches))
		for i, r := range reaches {
			names[i] = r.name
		}
		return a, fmt.Errorf("reading range: there is none of %q; use %s", name, strings.Join(names, ", "))
	}
	a.reach = reaches[i]
	a.gateway, a.service, a.route = values.Get("gateway"), values.Get("service"), values.Get("route")
	switch text := values.Get("refresh"); {
	case text == "off":
		a.still = true
	case text != "on" && values.Has("refresh"):
		return a, fmt.Errorf("reading refresh: it is on or off, not %q", text)
	}
	return a, nil
}

// query is the address of the page that shows what is asked for.
func (a ask) query() string {
	values := url.Values{"range": {a.name}}
	for key, value := range map[string]string{"gateway": a.gateway, "service": a.service, "route": a.route} {
		if value != "" {
			values.Set(key, value)
		}
	}
	if a.still {
		values.Set("refresh", "off")
	}
	return "?" + values.Encode()
}

// filter is what of the account is asked for.
func (a ask) filter() (f bandwidth.Filter) {
	only := func(name string) []string {
		if name == "" {
			return nil
		}
		return []string{name}
	}
	return bandwidth.Filter{Gateways: only(a.gateway), Services: only(a.service), Routes: only(a.route)}
}

// concerns reports whether something of a service and a route is asked for.
func (a ask) concerns(service, route string) bool {
	return (a.service == "" || a.service == service) && (a.route == "" || a.route == route)
}
