package balance

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// Member is a weighted member of a Ring.
type Member struct {
	// The name that determines the keys of the member, independent of its address.
	// Members with the same name are distinguished by their order.
	Name string

	// The share of the keys, relative to the other weights. Values below 1 count as 1.
	Weight int
}

// Ring assigns keys to members by consistent hashing. When a member leaves, only its own
// keys move, and they move back when it returns. A Ring is immutable and safe for
// concurrent use.
//
// Each member has virtual nodes on a circle of hashes (Karger et al., Consistent Hashing
// and Random Trees, 1997). A key is hashed several times and belongs to the virtual node
// that is nearest to one of its hashes. With four hashes, the spread of the shares is
// 0.38 times the spread with one hash, without more virtual nodes (Appleton and O'Reilly,
// Multi-Probe Consistent Hashing, 2015, section 3).
type Ring struct {
	points []uint64 // positions of the virtual nodes, sorted
	owners []uint32 // member of each virtual node

	// The index of the first point at or above each value of a hash's leading bits,
	// followed by the number of points. Two neighbors are the bounds of a search, which
	// contain about one point because hashes are evenly distributed.
	starts []uint32
	shift  uint

	members []Member
}

const (
	// The number of hashes per key.
	probes = 4

	// The maximum number of points on a ring, which take 64 MB. Above it, the points of
	// all members are halved until they fit.
	maxPoints = 1 << 22
)

// NewRing creates a ring with virtualNodes points for each unit of a member's weight.
// More points distribute keys more evenly but use more memory, 16 bytes each. The order
// of members with different names has no effect.
func NewRing(members []Member, virtualNodes int) *Ring {
	r := &Ring{members: members}
	counts, total := pointCounts(members, max(virtualNodes, 1))
	bits := uint(1)
	for 1<<bits < total {
		bits++
	}
	r.shift = 64 - bits
	r.points, r.owners = make([]uint64, total), make([]uint32, total)
	r.starts = make([]uint32, 1<<bits+1)
	seeds := seedsOf(members)

	// A counting sort by the leading bits takes linear time for evenly distributed
	// hashes.
	for i, seed := range seeds {
		for n := range counts[i] {
			r.starts[pointHash(seed, n)>>r.shift+1]++
		}
	}
	for i := 1; i < len(r.starts); i++ {
		r.starts[i] += r.starts[i-1]
	}
	filled := make([]uint32, 1<<bits)
	for i, seed := range seeds {
		for n := range counts[i] {
			hash := pointHash(seed, n)
			bucket := hash >> r.shift
			first := r.starts[bucket]
			at := first + filled[bucket]
			filled[bucket]++
			for ; at > first && r.points[at-1] > hash; at-- {
				r.points[at], r.owners[at] = r.points[at-1], r.owners[at-1]
			}
			r.points[at], r.owners[at] = hash, uint32(i)
		}
	}
	return r
}

// pointCounts returns the number of points of each member, and the total.
func pointCounts(members []Member, virtualNodes int) (counts []int, total int) {
	counts = make([]int, len(members))
	for halvings := 0; ; halvings++ {
		total = 0
		for i, m := range members {
			counts[i] = max(max(m.Weight, 1)*virtualNodes>>halvings, 1)
			total += counts[i]
		}
		if total <= maxPoints || total == len(members) {
			return counts, total
		}
	}
}

// seedsOf returns the hash seed of each member's points.
func seedsOf(members []Member) []uint64 {
	seeds := make([]uint64, len(members))
	seen := make(map[string]int, len(members))
	for i, m := range members {
		seeds[i] = xxhash.Sum64String(m.Name)
		if n := seen[m.Name]; n > 0 {
			seeds[i] = mix(seeds[i] + uint64(n))
		}
		seen[m.Name]++
	}
	return seeds
}

// Hash returns the hash of a key for Find. It is the same on all machines, so that
// several gateways agree on the member of a key.
func Hash(key string) uint64 { return xxhash.Sum64String(key) }

// Find returns the index of the member that owns a key, or -1 if the ring is empty. Its
// cost does not depend on the number of members, and it does not allocate.
func (r *Ring) Find(hash uint64) int {
	if len(r.points) == 0 {
		return -1
	}
	at := r.search(hash)
	nearest := r.points[at] - hash // unsigned overflow wraps around
	for i := uint64(1); i < probes; i++ {
		probe := probeHash(hash, i)
		here := r.search(probe)
		if distance := r.points[here] - probe; distance < nearest {
			at, nearest = here, distance
		}
	}
	return int(r.owners[at])
}

// FindAmong is like Find, restricted to the members for which accept returns true. Keys
// of a rejected member go to the member that would own them without it. FindAmong returns
// -1 if accept rejects every member.
func (r *Ring) FindAmong(hash uint64, accept func(member int) bool) int {
	best, limit := -1, uint64(math.MaxUint64)
	for i := range uint64(probes) {
		member, distance := r.walk(probeHash(hash, i), limit, accept)
		switch {
		case member >= 0:
			best = member
		case best < 0:
			return -1 // a whole turn without an accepted member
		default:
			continue
		}
		if distance == 0 {
			break
		}
		limit = distance - 1 // later probes must find a nearer point
	}
	return best
}

// walk returns the first accepted member at or after a hash, within a distance of limit.
func (r *Ring) walk(probe, limit uint64, accept func(member int) bool) (member int, distance uint64) {
	at := r.search(probe)
	for range r.points {
		if distance = r.points[at] - probe; distance > limit {
			break
		}
		if member = int(r.owners[at]); accept(member) {
			return member, distance
		}
		if at++; at == len(r.points) {
			at = 0
		}
	}
	return -1, 0
}

// search returns the index of the first point at or above a hash. It wraps around at the
// end.
func (r *Ring) search(hash uint64) int {
	bucket := hash >> r.shift
	at, end := int(r.starts[bucket]), int(r.starts[bucket+1])
	for at < end && r.points[at] < hash {
		at++
	}
	if at == len(r.points) {
		return 0
	}
	return at
}

// pointHash returns the position of a member's n-th virtual node. It is independent of
// the number of virtual nodes.
func pointHash(seed uint64, n int) uint64 { return mix(seed + uint64(n+1)*golden) }

// probeHash returns the i-th hash of a key, derived from its first hash.
func probeHash(hash, i uint64) uint64 {
	if i == 0 {
		return hash
	}
	return mix(hash ^ i*golden)
}

// golden is 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// mix distributes the bits of x. It is the finalizer of SplitMix64 (Steele, Lea and
// Flood, Fast Splittable Pseudorandom Number Generators, 2014, figure 16).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
