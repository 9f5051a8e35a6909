package balance

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// Member is one of those that share the keys of a Ring.
type Member struct {
	// What tells it from the others, wherever it runs and whatever its address.
	// Members of the same name are told apart by their order.
	Name string

	// Its share of the keys in proportion to those of the others. Below 1 counts
	// as 1.
	Weight int
}

// Ring assigns keys to members by consistent hashing: when a member leaves, only
// its own keys move, and when it is back, they return. It never changes, and is
// safe for concurrent use.
//
// Each member has virtual nodes on a circle of hashes (Karger et al., Consistent
// Hashing and Random Trees, 1997). A key is hashed several times, and belongs to
// the virtual node that one of its hashes is nearest to (Appleton and O'Reilly,
// Multi-Probe Consistent Hashing, 2015, section 3): with four hashes, the shares
// of the members spread 0.38 times as much as with one, and nothing else is lost.
type Ring struct {
	points []uint64 // where the virtual nodes are, sorted
	owners []uint32 // the member that each belongs to

	// The first point at or above each value that the leading bits of a hash can
	// have, and then the number of points: where a search begins and ends. Hashes
	// spread evenly, so that there is about one point in between.
	starts []uint32
	shift  uint

	members []Member
}

const (
	// How many hashes a key has.
	probes = 4

	// The most points of a ring, which take 64 MB. If there were to be more, all
	// members get half of theirs, as often as it takes.
	maxPoints = 1 << 22
)

// NewRing makes a ring on which each member has virtualNodes for each unit of its
// weight. More of them make the shares more even, and the ring larger: 16 bytes
// each. Rings of the same members in another order assign keys to the same names.
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

	// Hashes that spread evenly are sorted by counting how many begin alike,
	// which is done in linear time.
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

// pointCounts returns how many points each member gets, and their sum.
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

// seedsOf returns what the hashes of each member's points are made from.
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

// Hash is the hash of a key, which Find expects. It is the same everywhere, so
// that several gateways agree.
func Hash(key string) uint64 { return xxhash.Sum64String(key) }

// Find returns the index of the member that a key belongs to, -1 if the ring has
// no members. It takes as long for many members as for few and allocates nothing.
func (r *Ring) Find(hash uint64) int {
	if len(r.points) == 0 {
		return -1
	}
	at := r.search(hash)
	nearest := r.points[at] - hash // going round, by overflow
	for i := uint64(1); i < probes; i++ {
		probe := probeHash(hash, i)
		here := r.search(probe)
		if distance := r.points[here] - probe; distance < nearest {
			at, nearest = here, distance
		}
	}
	return int(r.owners[at])
}

// FindAmong is like Find among the members that accept approves of, as though
// the others were not on the ring. Where a key goes when its member does not
// accept it is thus where it would go if that one left. It returns -1 if there is
// none, after asking about every virtual node.
func (r *Ring) FindAmong(hash uint64, accept func(member int) bool) int {
	best, limit := -1, uint64(math.MaxUint64)
	for i := range uint64(probes) {
		member, distance := r.walk(probeHash(hash, i), limit, accept)
		switch {
		case member >= 0:
			best = member
		case best < 0:
			return -1 // a whole turn, and nobody
		default:
			continue
		}
		if distance == 0 {
			break
		}
		limit = distance - 1 // the next one has to be nearer
	}
	return best
}

// walk goes round from a hash to the first member that is accepted, if that is
// no farther than limit.
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

// search returns the first point at or above a hash, going round at the end.
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

// pointHash is where the n-th virtual node of a member is. The first ones stay
// where they are when there are more.
func pointHash(seed uint64, n int) uint64 { return mix(seed + uint64(n+1)*golden) }

// probeHash is the i-th hash of a key, from its first.
func probeHash(hash, i uint64) uint64 {
	if i == 0 {
		return hash
	}
	return mix(hash ^ i*golden)
}

// golden is 2^64 divided by the golden ratio.
const golden = 0x9e3779b97f4a7c15

// mix spreads the bits of x: the finalizer of SplitMix64 (Steele, Lea and Flood,
// Fast Splittable Pseudorandom Number Generators, 2014, figure 16).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
