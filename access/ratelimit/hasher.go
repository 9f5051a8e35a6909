package ratelimit

import (
	"hash/maphash"
	"math/bits"
)

// hasher computes 64-bit hashes of strings with a secret seed. Among a million keys, the
// probability of a collision is 1 in 37 million. Clients cannot search for collisions.
type hasher struct{ seed maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed()} }

// hash returns the hash of a string within a space, such as the hash of a policy's
// identity.
func (h hasher) hash(space uint64, text string) uint64 {
	return mix(maphash.String(h.seed, text), space)
}

// hashBytes is like hash for a byte slice.
func (h hasher) hashBytes(space uint64, text []byte) uint64 {
	return mix(maphash.Bytes(h.seed, text), space)
}

// mix combines two numbers by multiplication, like wyhash.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	return hi ^ lo
}
