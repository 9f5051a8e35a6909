package dockerupstreams

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The labels that configure how to reach a container. Options of the selector take
// precedence.
const (
	labelEnable      = "rgate.enable"       // true or false
	labelPort        = "rgate.port"         // 1 to 65535
	labelNetwork     = "rgate.network"      // the name of a network
	labelScheme      = "rgate.scheme"       // http, https or h2c
	labelWeight      = "rgate.weight"       // 1 to maxWeight
	labelMaxRequests = "rgate.max_requests" // 0 to maxMaxRequests; 0: no limit
	labelAddress     = "rgate.address"      // an IP address or a host name
	labelStopSignals = "rgate.stop_signals" // signals, separated by commas

	labelComposeProject = "com.docker.compose.project"
	labelComposeOneOff  = "com.docker.compose.oneoff"
)

const (
	maxWeight      = 1000
	maxMaxRequests = 1 << 30
)

// labelOptions holds the effective settings for reaching a container, from the selector and
// the container's labels.
type labelOptions struct {
	port        int    // 0: unset
	network     string // empty: unset
	address     string // empty: unset
	scheme      string
	weight      int
	maxRequests int
}

// labelError reports an invalid label value.
type labelError struct {
	label, value, remedy string
}

func (e *labelError) Error() string {
	return fmt.Sprintf("invalid label %s=%q: %s", e.label, clip(e.value), e.remedy)
}

// parseLabels merges sel and the labels of a container. Labels that sel overrides are not
// validated. The error is a *labelError.
func parseLabels(sel *Selector, labels map[string]string) (labelOptions, error) {
	s := labelOptions{port: sel.Port, network: sel.Network, scheme: sel.Scheme, weight: 1}
	var err error
	if s.port == 0 {
		if s.port, err = number(labels, labelPort, 0, 1, 65535); err != nil {
			return s, err
		}
	}
	if value, ok := labels[labelNetwork]; ok && s.network == "" {
		if value == "" {
			return s, &labelError{labelNetwork, value, "must be the name of a network: set the name, or remove the label"}
		}
		s.network = value
	}
	if s.scheme == "" {
		if s.scheme, err = scheme(sel, labels); err != nil {
			return s, err
		}
	}
	if s.weight, err = number(labels, labelWeight, 1, 1, maxWeight); err != nil {
		return s, err
	}
	if s.maxRequests, err = number(labels, labelMaxRequests, 0, 0, maxMaxRequests); err != nil {
		return s, err
	}
	if _, err = stopSignals(labels); err != nil {
		return s, err
	}
	s.address, err = hostName(sel, labels)
	return s, err
}

// scheme returns the scheme set by the rgate.scheme label, or the default.
func scheme(sel *Selector, labels map[string]string) (string, error) {
	fallback := cmp.Or(sel.onlyScheme, schemeHTTP)
	value, ok := labels[labelScheme]
	switch {
	case !ok:
		return fallback, nil
	case !slices.Contains(schemes, value):
		return "", &labelError{labelScheme, value, "must be " + oneOf(schemes)}
	case sel.onlyScheme != "" && value != sel.onlyScheme:
		return "", &labelError{labelScheme, value, fmt.Sprintf(
			"must be %s, which this reverse_proxy uses for all upstreams: use a separate reverse_proxy with scheme %s, or change the label",
			sel.onlyScheme, value)}
	default:
		return value, nil
	}
}

// number parses a label as a decimal number from lowest to highest. It returns fallback
// if the label is missing.
func number(labels map[string]string, label string, fallback, lowest, highest int) (int, error) {
	value, ok := labels[label]
	if !ok {
		return fallback, nil
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || int(n) < lowest || int(n) > highest {
		return fallback, &labelError{label, value,
			fmt.Sprintf("must be a whole number from %d to %d", lowest, highest)}
	}
	return int(n), nil
}

// hostName parses the rgate.address label: an IP address or a host name. It rejects all
// other values, because Caddy expands placeholders in a dial address. Local addresses
// would publish services of the gateway's host, such as the admin API.
func hostName(sel *Selector, labels map[string]string) (string, error) {
	value, ok := labels[labelAddress]
	if !ok {
		return "", nil
	}
	bare := value
	if strings.HasPrefix(bare, "[") && strings.HasSuffix(bare, "]") {
		bare = bare[1 : len(bare)-1]
	}
	ip, err := netip.ParseAddr(bare)
	isIP := err == nil && ip.Zone() == ""
	switch {
	case !isIP && !isHostName(value):
		return "", &labelError{labelAddress, value,
			"must be an IP address or a host name, without a scheme or a port"}
	case (isIP && !ip.IsGlobalUnicast() || !isIP && isLocalName(value)) && !sel.includes(includeLocalAddresses):
		return "", &labelError{labelAddress, value,
			"must be an address of the container: loopback, link-local and multicast addresses require the option include: local_addresses"}
	case isIP:
		return ip.String(), nil
	}
	return value, nil
}

// isLocalName reports whether a host name always is a name of the loopback address (RFC
// 6761, section 6.3).
func isLocalName(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || name == "localhost.localdomain"
}

func isHostName(s string) bool {
	if s == "" || len(s) > 253 || s[0] == '-' || s[0] == '.' {
		return false
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '_':
		default:
			return false
		}
	}
	return true
}

// clip truncates a label value for errors and the log.
func clip(value string) string {
	const longest = 100
	if len(value) <= longest {
		return value
	}
	return strings.ToValidUTF8(value[:longest], "") + "…"
}
