package access

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
	// `{http.auth.user.id}` or `{http.request.header.X-API-Key}`. Without a placeholder,
	// all requests count together. A request for which it is empty counts by its
	// client's IP address. Default: `{http.vars.client_ip}`, that address, as the
	// server's trusted proxies tell it.
	Key string `json:"key,omitempty"`

	// How many leading bits of an IPv6 address are one client, 1 to 128. It is for
	// keys that are the client's address or the connection's
	// (`{http.request.remote.host}`) and nothing else. Default: 64, what one client
	// is commonly given.
	IPv6Prefix int `json:"ipv6_prefix,omitempty" default:"64"`

	// The name under which counts are kept. Policies of the same name share them, on
	// whatever route, and they outlive a reload that changes the policy. Default:
	// none; the counts are the policy's own, and outlive reloads that leave it as it
	// is.
	Name string `json:"name,omitempty"`

	key       policy.Key
	isAddress bool
	identity  string // of the counts
	ordinal   ordinalKey
}

const defaultIPv6Prefix = 64

func (k *RateKey) check() *policy.OptionError {
	if policy.IsUnclosed(k.Key) {
		return policy.UnclosedKey("key", k.Key)
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
	k.key = policy.ParseKey(k.Key)
	k.isAddress = k.key.IsClientIP() || k.Key == "{http.request.remote.host}"
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

// of returns what a request counts by, and whether that is its client's address in
// place of a key that is empty.
func (k *RateKey) of(r *http.Request) (text string, isAddress, instead bool) {
	text = k.key.Of(r)
	if text == "" && !k.key.IsClientIP() {
		return policy.ClientAddress(r), true, true
	}
	return text, k.isAddress, false
}

// hash is the key of a request, given the spaces of keys and of addresses that take
// their place.
func (k *RateKey) hash(r *http.Request, h hasher, spaces *[2]uint64) uint64 {
	text, isAddress, instead := k.of(r)
	space := spaces[0]
	if instead { // nobody shall pass for another by sending an address as a key
		space = spaces[1]
	}
	if isAddress {
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
	text, isAddress, instead := k.of(r)
	if isAddress {
		if network := appendNetwork(nil, text, k.IPv6Prefix); len(network) > 0 {
			text = string(network)
		}
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

// networkOf returns the network of an IPv6 address, if the text is one. An IPv4 address
// in the form of one becomes what it is.
func networkOf(text string, bits int) (network netip.Prefix, ok bool) {
	if strings.IndexByte(text, ':') < 0 {
		return network, false
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return network, false
	}
	if address.Is4In6() {
		return netip.PrefixFrom(address.Unmap(), 32), true
	}
	network, err = address.Prefix(bits)
	return network, err == nil
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
