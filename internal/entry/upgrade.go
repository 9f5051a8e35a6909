package entry

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// DropUpgrades removes the protocols for which keep returns false from the Upgrade
// field, and returns them. HTTP2-Settings, the field of h2c, is removed, too. Of the
// other protocols, only the first remains, because a proxy compares the backend's
// choice with the whole field.
func DropUpgrades(r *http.Request, keep func(protocol string) bool) (dropped []string) {
	if r.Header["Upgrade"] == nil && r.Header["Http2-Settings"] == nil {
		return nil
	}
	kept := ""
	// Upgrade is ignored in HTTP/1.0, and unless Connection contains its name (RFC
	// 9110, section 7.8).
	if offered := httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade"); r.ProtoAtLeast(1, 1) && offered {
		for _, line := range r.Header["Upgrade"] {
			for protocol := range strings.SplitSeq(line, ",") {
				switch protocol = strings.Trim(protocol, " \t"); {
				case protocol == "":
				case !keep(protocol):
					dropped = append(dropped, protocol)
				case kept == "":
					kept = protocol
				}
			}
		}
	}
	delete(r.Header, "Http2-Settings")
	connection := r.Header["Connection"]
	var options []string
	for _, line := range connection {
		for option := range strings.SplitSeq(line, ",") {
			option = strings.Trim(option, " \t")
			if option != "" && !strings.EqualFold(option, "upgrade") && !strings.EqualFold(option, "http2-settings") {
				options = append(options, option)
			}
		}
	}
	if kept == "" {
		delete(r.Header, "Upgrade")
	} else {
		r.Header["Upgrade"] = []string{kept}
		options = append(options, "Upgrade")
	}
	if len(options) > 0 {
		r.Header["Connection"] = []string{strings.Join(options, ", ")}
	} else {
		delete(r.Header, "Connection")
	}
	return dropped
}

func keepsHandlers(protocol string) bool { return !CarriesRequests(protocol) }

const droppedVar = "rgate.dropped_upgrades"

// DroppedUpgrades returns the protocols that were removed from a request before all
// handlers: those for which CarriesRequests returns true.
func DroppedUpgrades(r *http.Request) []string {
	dropped, _ := caddyhttp.GetVar(r.Context(), droppedVar).([]string)
	return dropped
}

// CarriesRequests reports whether a protocol carries HTTP requests, which would bypass
// the handlers: h2c (RFC 9113 has removed this upgrade), another HTTP version, or TLS
// (RFC 2817).
func CarriesRequests(protocol string) bool {
	name, _, _ := strings.Cut(strings.ToLower(protocol), "/")
	switch name {
	case "h2c", "h2", "h3", "http", "tls":
		return true
	}
	return false
}
