package entry

import (
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
)

// DropUpgrades removes the protocols from a request's offer to switch that keep does not
// hold of, and all that belong to them. Of those that are left, the first stays: a proxy
// compares the backend's choice with the whole field. It returns what was dropped.
func DropUpgrades(r *http.Request, keep func(protocol string) bool) (dropped []string) {
	if r.Header["Upgrade"] == nil && r.Header["Http2-Settings"] == nil {
		return nil
	}
	kept := ""
	// An offer in HTTP/1.0, or one that is not named in Connection, is none (RFC 9110,
	// section 7.8).
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

// DroppedUpgrades returns what has been removed from a request's offer before any handler:
// protocols that CarriesRequests holds of.
func DroppedUpgrades(r *http.Request) []string {
	dropped, _ := caddyhttp.GetVar(r.Context(), droppedVar).([]string)
	return dropped
}

// CarriesRequests reports whether what flows after a switch to a protocol are requests of
// HTTP, which no handler would see: h2c (RFC 9113 has done away with the switch to it),
// another version of HTTP, and TLS around them (RFC 2817).
func CarriesRequests(protocol string) bool {
	name, _, _ := strings.Cut(strings.ToLower(protocol), "/")
	switch name {
	case "h2c", "h2", "h3", "http", "tls":
		return true
	}
	return false
}
