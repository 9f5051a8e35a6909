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

// RateKey groups requests for rate_limit and throttle.
type RateKey struct {
	// The key by which requests are grouped: text with placeholders such as
	// `{http.auth.user.id}` or `{http.request.header.X-API-Key}`, or the shorthands of a
	// Caddyfile. Without a placeholder, all requests have the same key. A request with an
	// empty key is grouped by its client address. Default: `{http.vars.client_ip}`, the
	// address of the client as reported by trusted proxies.
	Key string `json:"key,omitempty"`

	// The number of leading bits of an IPv6 address that identify a client, 1 to 128, where
	// a placeholder of the key is an address. Addresses with an embedded IPv4 address, such
	// as those of NAT64, count as that address. Default: 64, the usual network of a client.
	IPv6Prefix int `json:"ipv6_prefix,omitempty" default:"64"`

	// The name of the counters. Policies with the same name share them on all routes and
	// across reloads that change the policy. Default: none, the counters belong to the
	// policy and outlive reloads that do not change it.
	Name string `json:"name,omitempty"`

	key         placeholder.Key
	identity    string // of the counts
	policyCount configID
}

const defaultIPv6Prefix = 64

func (k *RateKey) check() *options.Error {
	if err := placeholder.CheckKey("key", k.Key); err != nil {
		return err
	}
	if k.IPv6Prefix < 0 || k.IPv6Prefix > 128 {
		return options.Errorf("ipv6_prefix", "ipv6_prefix %d is out of range: use 1 to 128", k.IPv6Prefix)
	}
	return nil
}

// provision sets the defaults and identifies the counters by the given options of the
// policy.
func (k *RateKey) provision(ctx caddy.Context, of caddy.Module, identifying any) error {
	if err := k.identify(ctx, string(of.CaddyModule().ID), identifying); err != nil {
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
// the scope, and the number of equal policies that were provisioned before, because a
// configuration is always provisioned in the same order.
func (k *RateKey) identify(ctx caddy.Context, kind string, identifying any) error {
	if k.Name != "" {
		k.identity = kind + " named " + k.Name
		return nil
	}
	options, err := json.Marshal(identifying)
	if err != nil {
		return fmt.Errorf("encoding the options: %w", err)
	}
	k.identity = fmt.Sprintf("%s in %q: %s", kind, policy.ScopeKey(ctx), options)
	key := configID{ctx.GetMetricsRegistry(), k.identity}
	count, _, err := configIDs.LoadOrNew(key, func() (caddy.Destructor, error) { return new(policyCount), nil })
	if err != nil {
		return err
	}
	k.policyCount = key
	k.identity = fmt.Sprintf("%s number %d", k.identity, count.(*policyCount).Add(1))
	return nil
}

// release releases what identify acquired.
func (k *RateKey) release() error {
	if k.policyCount.identity == "" {
		return nil
	}
	_, err := configIDs.Delete(k.policyCount)
	k.policyCount = configID{}
	return err
}

// configIDs count equal policies of a configuration, which has its own registry of metrics.
var configIDs = caddy.NewUsagePool()

type configID struct {
	configuration *prometheus.Registry
	identity      string
}

type policyCount struct{ atomic.Int64 }

func (*policyCount) Destruct() error { return nil }

// of returns the key of a request, whether it is a single value, which can be an address,
// and whether it is the address of the client instead of an empty key.
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

// grouped returns the network of an IPv6 address and other values unchanged.
func (k *RateKey) grouped(value string) string {
	if network := appendNetwork(nil, value, k.IPv6Prefix); len(network) > 0 {
		return string(network)
	}
	return value
}

// hash returns the hash of the key of a request, in the space of keys or in that of
// addresses that replace empty keys.
func (k *RateKey) hash(r *http.Request, h hasher, spaces *[2]uint64) uint64 {
	text, single, instead := k.of(r)
	space := spaces[0]
	if instead { // else a client could pass for another by sending an address as a key
		space = spaces[1]
	}
	if single {
		if network, ok := networkOf(text, k.IPv6Prefix); ok {
			return hashNetwork(h, space, network)
		}
	}
	return h.hash(space, text)
}

// spaces returns the spaces for hash.
func (k *RateKey) spaces(h hasher) [2]uint64 {
	return [2]uint64{h.hash(0, k.identity), h.hash(1, k.identity)}
}

// text returns the key of a request in a form that is equal in all processes.
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

// appendNetwork appends the network of an IPv6 address, if the text is one.
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

// networkOf returns the network of an IPv6 address, or the IPv4 address that is embedded in
// it.
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
	if localNAT64.Contains(address.WithZone("")) { // how much of it is the IPv4 address is not known
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

// embeddedIPv4 returns the IPv4 address that is embedded in an IPv6 address. All clients of
// a translator or a Teredo server are in one /64 network, and a client of 6to4 has 65536 of
// these.
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

// hashNetwork hashes the result of networkOf: the text of an IPv4 address, and the 16 bytes
// of others, which are faster to get than a text.
func hashNetwork(h hasher, space uint64, network netip.Prefix) uint64 {
	if address := network.Addr(); address.Is4() {
		var text [len("255.255.255.255")]byte
		return h.hashBytes(space, address.AppendTo(text[:0]))
	}
	address := network.Addr().As16()
	return h.hashBytes(space, address[:])
}
