package ipfilter

import (
	"fmt"
	"net/netip"
	"slices"
)

// ipSet is a set of IP addresses that is searched with a binary search. IPv4 and IPv6 are
// separate: `::/0` contains no IPv4 address.
type ipSet []ipSpan // sorted and disjoint

// ipSpan is an inclusive range of addresses.
type ipSpan struct{ first, last netip.Addr }

// newIPSet returns the set of all addresses within the prefixes.
func newIPSet(prefixes []netip.Prefix) ipSet {
	spans := make([]ipSpan, len(prefixes))
	for i, prefix := range prefixes {
		spans[i] = ipSpan{prefix.Masked().Addr(), lastOf(prefix)}
	}
	slices.SortFunc(spans, func(a, b ipSpan) int { return a.first.Compare(b.first) })
	set := spans[:0]
	for _, span := range spans {
		if n := len(set); n > 0 && !set[n-1].last.Less(span.first) {
			if set[n-1].last.Less(span.last) {
				set[n-1].last = span.last
			}
			continue
		}
		set = append(set, span)
	}
	return slices.Clip(set)
}

// lastOf returns the last address of a prefix.
func lastOf(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < prefix.Addr().BitLen(); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes) // cannot fail: the length is valid
	return last
}

// has reports whether the set contains an address returned by parseIP.
func (set ipSet) has(addr netip.Addr) bool {
	from, to := 0, len(set)
	for from < to { // finds the first span that begins after the address
		if middle := int(uint(from+to) / 2); addr.Less(set[middle].first) {
			to = middle
		} else {
			from = middle + 1
		}
	}
	return from > 0 && !set[from-1].last.Less(addr)
}

// parseIP parses a client address. It unmaps IPv4-mapped IPv6 addresses and removes
// zones.
func parseIP(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	return addr.Unmap().WithZone(""), err == nil
}

// parsePrefix parses an IP address or a CIDR range.
func parsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("must not have a zone: use %s", addr.WithZone(""))
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("must be an address such as 203.0.113.7, a range such as 203.0.113.0/24 or 2001:db8::/32, or %s", privateRanges)
	}
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("use %s for the whole range, or %s for the single address", masked, prefix.Addr())
	}
	return prefix, nil
}

// privateRanges is the keyword for Caddy's private ranges.
const privateRanges = "private_ranges"
