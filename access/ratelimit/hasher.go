package ratelimit

import (
	"hash/maphash"
	"math/bits"
)

// hasher returns 64-bit hashes of texts with a secret seed. Among a million keys, the
// probability of a collision is 1 in 37 million, and clients cannot search for one.
type hasher struct{ seed maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed()} }

// hash returns the hash of a text in a space, such as the hash of the name of a limit.
func (h hasher) hash(space uint64, text string) uint64 {
	return mix(maphash.String(h.seed, text), space)
}

// hashBytes is hash for bytes.
func (h hasher) hashBytes(space uint64, text []byte) uint64 {
	return mix(maphash.Bytes(h.seed, text), space)
}

// mix combines two numbers by a multiplication (as wyhash does).
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	return hi ^ lo
}
