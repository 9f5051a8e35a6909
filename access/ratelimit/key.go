package ratelimit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

// RateKey holds the options of rate_limit and throttle that group requests by key.
type RateKey struct {
	// The key that groups requests: a string with placeholders such as
	// `{http.auth.user.id}` or `{http.request.header.X-API-Key}`, or with Caddyfile
	// shorthands. Without placeholders, all requests share one key. Requests with an
	// empty key are grouped by client address. Default: `{http.vars.client_ip}`, the
	// client address as reported by trusted proxies.
	Key string `json:"key,omitempty"`

	// The prefix length, 1 to 128, that identifies an IPv6 client. It applies to
	// placeholders that are addresses. Addresses with an embedded IPv4 address, such as
	// NAT64 addresses, are replaced by the IPv4 address. Default: 64, the usual network
	// of one client.
	IPv6Prefix int `json:"ipv6_prefix,omitempty" default:"64"`

	// The name of the counters. Policies with the same name share counters across routes,
	// and keep them across reloads that change the policy. Default: none. Without a name,
	// each policy has its own counters, which survive reloads that do not change the
	// policy.
	Name string `json:"name,omitempty"`

	key         placeholder.Key
	identity    string // identifies the counters
	policyCount configID
	position    policy.Position // set outside of a gateway if Name is empty
}

const defaultIPv6Prefix = 64

func (k *RateKey) check() *options.Error {
	if err := placeholder.CheckKey("key", k.Key); err != nil {
		return err
	}
	if k.IPv6Prefix < 0 || k.IPv6Prefix > 128 {
		return options.Errorf("ipv6_prefix", "invalid ipv6_prefix %d: must be 1 to 128", k.IPv6Prefix)
	}
	return nil
}

// provision sets defaults and derives the identity of the counters from the given options
// of the policy. shared reports whether other processes use the counters.
func (k *RateKey) provision(ctx caddy.Context, of caddy.Module, identifying any, shared bool) error {
	if err := k.identify(ctx, string(of.CaddyModule().ID), identifying, shared); err != nil {
		return err
	}
	if k.Key == "" {
		k.Key = placeholder.ClientIP
	}
	if k.IPv6Prefix == 0 {
		k.IPv6Prefix = defaultIPv6Prefix
	}
	placeholder.WarnUnknown(ctx, "key", k.Key)
	k.key = placeholder.ParseKey(k.Key)
	return nil
}

// identify sets the identity of the counters. Without a name, it consists of the options,
// the scope and the number of equal policies provisioned before. Caddy provisions the
// routes of a server always in the same order. Outside of a gateway, the position
// distinguishes servers and routes, except for shared counters: the processes may listen
// at different addresses.
func (k *RateKey) identify(ctx caddy.Context, kind string, identifying any, shared bool) error {
	if k.Name != "" {
		k.identity = kind + " named " + k.Name
		return nil
	}
	options, err := json.Marshal(identifying)
	if err != nil {
		return fmt.Errorf("encoding the options: %w", err)
	}
	k.identity = fmt.Sprintf("%s in %q: %s", kind, policy.ScopeKey(ctx), options)
	if policy.ScopeKey(ctx) == "" && !shared {
		k.position = policy.PositionOf(ctx, k.identity)
		k.identity = k.position.String()
		return nil
	}
	key := configID{ctx.GetMetricsRegistry(), k.identity}
	count, _, err := configIDs.LoadOrNew(key, func() (caddy.Destructor, error) { return new(policyCount), nil })
	if err != nil {
		return err
	}
	k.policyCount = key
	k.identity = fmt.Sprintf("%s number %d", k.identity, count.(*policyCount).Add(1))
	return nil
}

// release releases the resources that identify acquired.
func (k *RateKey) release() error {
	k.position.Release()
	if k.policyCount.identity == "" {
		return nil
	}
	_, err := configIDs.Delete(k.policyCount)
	k.policyCount = configID{}
	return err
}

// configIDs counts equal policies per configuration. A configuration is identified by its
// metrics registry.
var configIDs = caddy.NewUsagePool()

type configID struct {
	configuration *prometheus.Registry
	identity      string
}

type policyCount struct{ atomic.Int64 }

func (*policyCount) Destruct() error { return nil }

// of returns the key of a request. single reports whether the key is one value, which can
// be an address. instead reports whether the key was empty and the client address is
// used.
func (k *RateKey) of(r *http.Request) (text string, single, instead bool) {
	if single = k.key.IsPlaceholder(); single {
		text = k.key.Of(r)
	} else {
		text = k.key.OfEach(r, k.grouped)
	}
	if text == "" && !k.key.IsClientIP() {
		return trust.ClientAddress(r), true, true
	}
	return text, single, false
}

// grouped returns the network of an IPv6 address. Other values are returned unchanged.
func (k *RateKey) grouped(value string) string {
	if network := appendNetwork(nil, value, k.IPv6Prefix); len(network) > 0 {
		return string(network)
	}
	return value
}

// hash returns the hash of a request's key. Keys and client addresses that replace empty
// keys have separate spaces.
func (k *RateKey) hash(r *http.Request, h hasher, spaces *[2]uint64) uint64 {
	text, single, instead := k.of(r)
	space := spaces[0]
	if instead { // prevents clients from impersonating others by sending an address as the key
		space = spaces[1]
	}
	if single {
		if network, ok := networkOf(text, k.IPv6Prefix); ok {
			return hashNetwork(h, space, network)
		}
	}
	return h.hash(space, text)
}

// spaces returns the two spaces for hash.
func (k *RateKey) spaces(h hasher) [2]uint64 {
	return [2]uint64{h.hash(0, k.identity), h.hash(1, k.identity)}
}

// text returns the key of a request in a form that is the same in all processes.
func (k *RateKey) text(r *http.Request) string {
	text, single, instead := k.of(r)
	if single {
		text = k.grouped(text)
	}
	if instead {
		return k.identity + "\x00address\x00" + text
	}
	return k.identity + "\x00key\x00" + text
}

// appendNetwork appends the network of text if it is an IPv6 address.
func appendNetwork(b []byte, text string, bits int) []byte {
	network, ok := networkOf(text, bits)
	switch {
	case !ok:
		return b
	case network.Addr().Is4():
		return network.Addr().AppendTo(b)
	}
	return network.AppendTo(b)
}

// networkOf returns the network of an IPv6 address, or its embedded IPv4 address.
func networkOf(text string, bits int) (network netip.Prefix, ok bool) {
	if strings.IndexByte(text, ':') < 0 {
		return network, false
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return network, false
	}
	if v4, ok := embeddedIPv4(address); ok {
		return netip.PrefixFrom(v4, 32), true
	}
	if localNAT64.Contains(address.WithZone("")) { // the position of the embedded IPv4 address is unknown
		bits = 128
	}
	network, err = address.Prefix(bits)
	return network, err == nil
}

var (
	wellKnownNAT64 = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052, section 2.1
	localNAT64     = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour      = netip.MustParsePrefix("2002::/16")      // RFC 3056
	teredo         = netip.MustParsePrefix("2001::/32")      // RFC 4380, section 4
)

// embeddedIPv4 returns the IPv4 address embedded in an IPv6 address. All clients of a
// translator or a Teredo server share one /64 network, and a 6to4 client has 65536 of
// them.
func embeddedIPv4(address netip.Addr) (v4 netip.Addr, ok bool) {
	if address.Is4In6() {
		return address.Unmap(), true
	}
	address = address.WithZone("")
	switch b := address.As16(); {
	case wellKnownNAT64.Contains(address):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixToFour.Contains(address):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case teredo.Contains(address):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), true
	}
	return v4, false
}

// hashNetwork hashes the result of networkOf: IPv4 addresses as text, and IPv6 addresses
// as 16 bytes, which is faster.
func hashNetwork(h hasher, space uint64, network netip.Prefix) uint64 {
	if address := network.Addr(); address.Is4() {
		var text [len("255.255.255.255")]byte
		return h.hashBytes(space, address.AppendTo(text[:0]))
	}
	address := network.Addr().As16()
	return h.hashBytes(space, address[:])
}
