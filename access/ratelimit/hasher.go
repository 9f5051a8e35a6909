package ratelimit

import (
	"hash/maphash"
	"math/bits"
)

// hasher makes keys of 64 bits of texts, by a hash with a secret seed. Of a million
// keys, the chance that any two are the same is 1 in 37 million, and nobody outside
// can look for such a pair.
type hasher struct{ seed maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed()} }

// hash makes a key of a text. The same text is another key in another space, such
// as the hash of a limit's name.
func (h hasher) hash(space uint64, text string) uint64 {
	return mix(maphash.String(h.seed, text), space)
}

// hashBytes is hash for bytes.
func (h hasher) hashBytes(space uint64, text []byte) uint64 {
	return mix(maphash.Bytes(h.seed, text), space)
}

// mix folds two numbers into one by a multiplication (as wyhash does).
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	return hi ^ lo
}
