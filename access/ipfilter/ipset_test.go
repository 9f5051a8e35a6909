package ipfilter

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// ipPrefixes parses valid prefixes.
func ipPrefixes(t testing.TB, texts ...string) (prefixes []netip.Prefix) {
	t.Helper()
	for _, text := range texts {
		prefix, err := parsePrefix(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes
}

func TestIPSet(t *testing.T) {
	for _, tc := range []struct{ set, in, out string }{
		{"", "", "0.0.0.0 192.0.2.1 :: ::1"},
		{"192.0.2.0/24", "192.0.2.0 192.0.2.255 ::ffff:192.0.2.7", "192.0.1.255 192.0.3.0 ::c000:207"},
		{"192.0.2.7", "192.0.2.7 ::ffff:192.0.2.7", "192.0.2.6 192.0.2.8"},
		{"0.0.0.0/0", "0.0.0.0 255.255.255.255 ::ffff:1.2.3.4", ":: ::1 2001:db8::1"},
		{"::/0", ":: ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe80::1%eth0", "0.0.0.0 1.2.3.4 ::ffff:1.2.3.4"},
		{"::ffff:192.0.2.0/120", "192.0.2.9 ::ffff:192.0.2.9", "192.0.3.0"},
		{"::ffff:192.0.2.9", "192.0.2.9 ::ffff:192.0.2.9", "192.0.2.8"},
		{"::ffff:0:0/96", "0.0.0.0 255.255.255.255", "::1"},
		{"2001:db8::/32 fe80::/10", "2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff fe80::1%eth0 febf::", "2001:db7:ffff:: 2001:db9:: fec0::"},
		{"10.0.0.0/8 10.1.0.0/16 10.1.2.3 9.255.255.255 11.0.0.0", "9.255.255.255 10.0.0.0 10.255.255.255 11.0.0.0", "9.255.255.254 11.0.0.1"},
		{"255.255.255.255 ::", "255.255.255.255 ::", "255.255.255.254 ::1"},
	} {
		set := newIPSet(ipPrefixes(t, strings.Fields(tc.set)...))
		for want, list := range map[bool]string{true: tc.in, false: tc.out} {
			for _, text := range strings.Fields(list) {
				addr, ok := parseIP(text)
				if !ok || set.has(addr) != want {
					t.Errorf("%s in %q: got %v, want %v", text, tc.set, !want, want)
				}
			}
		}
	}
	for _, text := range []string{"", "192.0.2", "192.0.2.1:80", "example.com", "@", "[::1]"} {
		if _, ok := parseIP(text); ok {
			t.Errorf("%q is taken for an address", text)
		}
	}
}

func TestWrongPrefixes(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "must be an address such as 203.0.113.7",
		"private":           "private_ranges",
		"10.0.0.0/33":       "a range such as 203.0.113.0/24",
		"10.0.0.0/-1":       "must be an address",
		"example.com":       "must be an address",
		"10.0.0.5/8":        "use 10.0.0.0/8 for the whole range, or 10.0.0.5 for the single address",
		"2001:db8::1/32":    "use 2001:db8::/32 for",
		"::ffff:10.0.0.5/8": "use ",
		"fe80::1%eth0":      "must not have a zone: use fe80::1",
		"fe80::%eth0/10":    "must not have a zone",
		"192.0.2.1:80":      "must be an address",
	} {
		if prefix, err := parsePrefix(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v and %v, want %q", text, prefix, err, want)
		}
	}
}

// TestIPSetHasWhatPrefixesHave compares sets of random prefixes with the prefixes.
func TestIPSetHasWhatPrefixesHave(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		prefixes := make([]netip.Prefix, random.IntN(20))
		for i := range prefixes {
			prefixes[i] = ipRandomPrefix(random)
		}
		set := newIPSet(prefixes)
		check := func(addr netip.Addr) {
			want := false
			for _, prefix := range prefixes {
				want = want || prefix.Contains(addr)
			}
			if addr.IsValid() && set.has(addr) != want {
				t.Fatalf("%s in %v: got %v", addr, prefixes, !want)
			}
		}
		for _, prefix := range prefixes {
			first, last := prefix.Masked().Addr(), lastOf(prefix)
			for _, addr := range []netip.Addr{first.Prev(), first, first.Next(), last.Prev(), last, last.Next()} {
				check(addr)
			}
		}
		for range 50 {
			check(ipRandomPrefix(random).Addr())
		}
	}
}

// ipRandomPrefix returns a random prefix from a small range, so that prefixes overlap.
func ipRandomPrefix(random *rand.Rand) netip.Prefix {
	if random.IntN(2) == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), byte(random.IntN(4)), byte(random.Uint32())}), random.IntN(33))
	}
	addr := netip.MustParseAddr("2001:db8::").As16()
	addr[7], addr[15] = byte(random.IntN(4)), byte(random.Uint32())
	return netip.PrefixFrom(netip.AddrFrom16(addr), random.IntN(129))
}

// FuzzParsePrefix checks that an entry is either rejected or a range. The set contains
// the first and the last address of the range, but not their neighbors.
func FuzzParsePrefix(f *testing.F) {
	for _, text := range []string{"192.0.2.1", "10.0.0.0/8", "::1", "2001:db8::/32", "::ffff:10.0.0.0/104", "fe80::1%eth0", "0.0.0.0/0", "::/0", "private_ranges"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		prefix, err := parsePrefix(text)
		if err != nil {
			return
		}
		if prefix != prefix.Masked() || prefix.Addr().Is4In6() || prefix.Addr().Zone() != "" {
			t.Fatalf("got %s", prefix)
		}
		set := newIPSet([]netip.Prefix{prefix})
		first, last := prefix.Addr(), lastOf(prefix)
		if !set.has(first) || !set.has(last) || !prefix.Contains(last) || set.has(first.Prev()) || set.has(last.Next()) {
			t.Errorf("%s is from %s to %s: %v", prefix, first, last, set)
		}
		if addr, ok := parseIP(first.String()); !ok || !set.has(addr) {
			t.Errorf("%s has no %s", prefix, addr)
		}
	})
}

func BenchmarkIPSet(b *testing.B) {
	for _, size := range []int{10, 10_000} {
		prefixes := make([]netip.Prefix, size)
		for i := range prefixes {
			prefixes[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 7), byte(i << 1), 0}), 24)
		}
		set := newIPSet(prefixes)
		if len(set) != size {
			b.Fatalf("there are %d spans", len(set))
		}
		for what, text := range map[string]string{"in": prefixes[size/3].Addr().String(), "out": "203.0.113.7"} {
			b.Run(fmt.Sprintf("%s/%d", what, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					addr, _ := parseIP(text)
					set.has(addr)
				}
			})
		}
	}
}
