package balance

import (
	"math/rand/v2"
	"testing"
)

func TestCapacity(t *testing.T) {
	for _, test := range []struct {
		factor                             float64
		requests, weights, weight, expects int
	}{
		{1.25, 0, 10, 1, 1},     // the first request is always admitted
		{1.25, 7, 10, 1, 1},     // 1.25 × 8 / 10 is exactly 1
		{1.25, 8, 10, 1, 2},     // 1.125, rounded up
		{1.25, 99, 10, 1, 13},   // 12.5, rounded up
		{1.25, 99, 10, 3, 38},   // three times the share
		{1.1, 9, 10, 1, 2},      // 1.1, rounded up
		{2, 999, 3, 1, 667},     // 666.7, rounded up
		{1.0001, 99, 1, 1, 101}, // a single member is never full
	} {
		all := load{requests: test.requests, weights: test.weights}
		if got := all.capacity(test.factor, test.weight); got != test.expects {
			t.Errorf("capacity %v of %+v, weight %d: got %d, want %d", test.factor, all, test.weight, got, test.expects)
		}
	}
}

// TestNoMemberExceedsTheBound checks the bound under a realistic, skewed distribution of
// keys. As long as the owner of a key has room, it gets the request.
func TestNoMemberExceedsTheBound(t *testing.T) {
	for name, weights := range map[string][]int{
		"even":     {1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		"weighted": {1, 2, 3, 4, 1, 2, 3, 4, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			members := membersNamed(len(weights), namings["compose"])
			var all load
			for i, weight := range weights {
				members[i].Weight = weight
				all.weights += weight
			}
			ring := NewRing(members, 150)
			random := rand.New(rand.NewPCG(1, 2))
			zipf := rand.NewZipf(random, 1.1, 1, 9_999)
			const factor, concurrency = 1.25, 200
			inFlight := make([]int, len(members))
			var under []int // members of the requests in flight
			spilled := 0
			for range 50_000 {
				if all.requests == concurrency { // a random request ends
					i := random.IntN(len(under))
					inFlight[under[i]]--
					under[i] = under[len(under)-1]
					under = under[:len(under)-1]
					all.requests--
				}
				hash := keys()[zipf.Uint64()]
				room := func(i int) bool { return inFlight[i] < all.capacity(factor, members[i].Weight) }
				to := ring.FindAmong(hash, room)
				if to < 0 {
					t.Fatalf("no member has room: %v", inFlight)
				}
				if own := ring.Find(hash); own != to {
					spilled++
					if room(own) {
						t.Fatalf("a key left member %d, which has room", own)
					}
				}
				inFlight[to]++
				all.requests++
				under = append(under, to)
				if bound := float64(all.requests) * factor * float64(weights[to]) / float64(all.weights); float64(inFlight[to]) >= bound+1 {
					t.Fatalf("member %d has %d requests of %d, its bound is %.2f", to, inFlight[to], all.requests, bound)
				}
			}
			if spilled == 0 {
				t.Error("nothing had to go elsewhere: the test shows nothing")
			}
		})
	}
}
