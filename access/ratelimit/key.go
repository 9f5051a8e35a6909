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

	"github.com/rgate/rgate/policy"
)

// RateKey is how rate_limit and throttle tell requests apart.
type RateKey struct {
	// What requests are told apart by: text with placeholders, such as
	// `{http.auth.user.id}` or `{http.request.header.X-API-Key}`; the shorthands of a
	// Caddyfile are understood. Without a placeholder,
	// all requests count together. A request for which it is empty counts by its
	// client's IP address. Default: `{http.vars.client_ip}`, that address, as the
	// server's trusted proxies tell it.
	Key string `json:"key,omitempty"`

	// How many leading bits of an IPv6 address are one client, 1 to 128, where a
	// placeholder of the key stands for an address. Addresses that have an IPv4 address in
	// them, such as those of NAT64, count as that. Default: 64, what one client is commonly
	// given.
	IPv6Prefix int `json:"ipv6_prefix,omitempty" default:"64"`

	// The name under which counts are kept. Policies of the same name share them, on
	// whatever route, and they outlive a reload that changes the policy. Default:
	// none; the counts are the policy's own, and outlive reloads that leave it as it
	// is.
	Name string `json:"name,omitempty"`

	key      policy.Key
	identity string // of the counts
	ordinal  ordinalKey
}

const defaultIPv6Prefix = 64

func (k *RateKey) check() *policy.OptionError {
	if err := policy.CheckKey("key", k.Key); err != nil {
		return err
	}
	if k.IPv6Prefix < 0 || k.IPv6Prefix > 128 {
		return policy.Optionf("ipv6_prefix", "ipv6_prefix %d is out of range: use 1 to 128", k.IPv6Prefix)
	}
	return nil
}

// provision fills in the defaults and finds out the identity of the counts, given
// the policy and those of its options that make it another one.
func (k *RateKey) provision(ctx caddy.Context, of caddy.Module, essence any) error {
	if err := k.identify(ctx, string(of.CaddyModule().ID), essence); err != nil {
		return err
	}
	if k.Key == "" {
		k.Key = policy.ClientIP
	}
	if k.IPv6Prefix == 0 {
		k.IPv6Prefix = defaultIPv6Prefix
	}
	policy.WarnOfKey(ctx, "key", k.Key)
	k.key = policy.ParseKey(k.Key)
	return nil
}

// identify names the counts of a policy. Those without a name are known by their
// options, the scope that they stand in, and how many of the same options were
// set up before: a configuration is always set up in the same order.
func (k *RateKey) identify(ctx caddy.Context, kind string, essence any) error {
	if k.Name != "" {
		k.identity = kind + " named " + k.Name
		return nil
	}
	options, err := json.Marshal(essence)
	if err != nil {
		return fmt.Errorf("encoding the options: %w", err)
	}
	k.identity = fmt.Sprintf("%s in %q: %s", kind, policy.Scope(ctx), options)
	key := ordinalKey{ctx.GetMetricsRegistry(), k.identity}
	count, _, err := ordinals.LoadOrNew(key, func() (caddy.Destructor, error) { return new(ordinal), nil })
	if err != nil {
		return err
	}
	k.ordinal = key
	k.identity = fmt.Sprintf("%s number %d", k.identity, count.(*ordinal).Add(1))
	return nil
}

// release lets go of what identify has acquired.
func (k *RateKey) release() error {
	if k.ordinal.identity == "" {
		return nil
	}
	_, err := ordinals.Delete(k.ordinal)
	k.ordinal = ordinalKey{}
	return err
}

// ordinals count equal policies, by configuration: each has a registry of metrics of
// its own.
var ordinals = caddy.NewUsagePool()

type ordinalKey struct {
	configuration *prometheus.Registry
	identity      string
}

type ordinal struct{ atomic.Int64 }

func (*ordinal) Destruct() error { return nil }

// of returns what a request counts by, whether that is one value, which may be an address,
// and whether it is the client's address in place of a key that is empty.
func (k *RateKey) of(r *http.Request) (text string, single, instead bool) {
	if single = k.key.IsPlaceholder(); single {
		text = k.key.Of(r)
	} else {
		text = k.key.OfEach(r, k.grouped)
	}
	if text == "" && !k.key.IsClientIP() {
		return policy.ClientAddress(r), true, true
	}
	return text, single, false
}

// grouped is the network in place of an IPv6 address.
func (k *RateKey) grouped(value string) string {
	if network := appendNetwork(nil, value, k.IPv6Prefix); len(network) > 0 {
		return string(network)
	}
	return value
}

// hash is the key of a request, given the spaces of keys and of addresses that take
// their place.
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

// spaces are those that hash needs.
func (k *RateKey) spaces(h hasher) [2]uint64 {
	return [2]uint64{h.hash(0, k.identity), h.hash(1, k.identity)}
}

// text is the key of a request in words that are the same in every process.
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

// networkOf returns the network of an IPv6 address, if the text is one. An address that
// stands for one of IPv4 becomes that.
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

// embeddedIPv4 returns the IPv4 address of a client whose IPv6 address is made of it. All
// clients of a translator, or of a Teredo server, are in one network of 64 bits, and a
// client of 6to4 has 65536 of these.
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

// hashNetwork makes a key of what networkOf returns: of an IPv4 address the one that its
// text has, and of the others one of their 16 bytes, which are faster to get than a text.
func hashNetwork(h hasher, space uint64, network netip.Prefix) uint64 {
	if address := network.Addr(); address.Is4() {
		var text [len("255.255.255.255")]byte
		return h.hashBytes(space, address.AppendTo(text[:0]))
	}
	address := network.Addr().As16()
	return h.hashBytes(space, address[:])
}
