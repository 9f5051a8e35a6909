package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

const manyKeys = 100_000

// keys returns the hashes of 100,000 keys.
var keys = sync.OnceValue(func() []uint64 {
	hashes := make([]uint64, manyKeys)
	for i := range hashes {
		hashes[i] = Hash(fmt.Sprintf("user-%d", i))
	}
	return hashes
})

// namings are naming schemes of members. All should distribute keys equally well.
var namings = map[string]func(i int) string{
	"compose":   func(i int) string { return fmt.Sprintf("shop-payment-%d", i+1) },
	"plain":     func(i int) string { return fmt.Sprintf("payment%d", i) },
	"padded":    func(i int) string { return fmt.Sprintf("web_%03d", i) },
	"letters":   func(i int) string { return string(rune('a' + i)) },
	"addresses": func(i int) string { return fmt.Sprintf("172.17.0.%d:8080", i+2) },
	"ports":     func(i int) string { return fmt.Sprintf("127.0.0.1:%d", 9001+i) },
	"hex":       func(i int) string { return fmt.Sprintf("%012x", uint64(i+1)*0xdeadbeef) },
	"long":      func(i int) string { return fmt.Sprintf("a-name-that-says-a-lot-about-what-it-does-in-region-%d", i) },
}

func membersNamed(n int, name func(int) string) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{Name: name(i), Weight: 1}
	}
	return members
}

// keysOf returns the number of keys of each member.
func keysOf(r *Ring, members int) []int {
	counts := make([]int, members)
	for _, hash := range keys() {
		counts[r.Find(hash)]++
	}
	return counts
}

// variation returns the coefficient of variation of counts.
func variation(counts []int) float64 {
	var sum, squares float64
	for _, n := range counts {
		sum += float64(n)
	}
	mean := sum / float64(len(counts))
	for _, n := range counts {
		squares += (float64(n) - mean) * (float64(n) - mean)
	}
	return math.Sqrt(squares/float64(len(counts))) / mean
}

func TestSharesAreEven(t *testing.T) {
	for naming, name := range namings {
		t.Run(naming, func(t *testing.T) {
			counts := keysOf(NewRing(membersNamed(10, name), 150), 10)
			if cv := variation(counts); cv > 0.061 {
				t.Errorf("the coefficient of variation is %.4f: %v", cv, counts)
			}
		})
	}
}

func TestMoreVirtualNodesAreMoreEven(t *testing.T) {
	mean := func(virtualNodes int) (sum float64) {
		for _, name := range namings {
			sum += variation(keysOf(NewRing(membersNamed(10, name), virtualNodes), 10))
		}
		return sum / float64(len(namings))
	}
	last := math.Inf(1)
	for _, n := range []int{1, 10, 150, 1500} {
		now := mean(n)
		if now >= last {
			t.Errorf("with %d virtual nodes the variation is %.4f, no better than %.4f with fewer", n, now, last)
		}
		last = now
	}
}

func TestOnlyTheKeysOfTheRemovedMove(t *testing.T) {
	members := membersNamed(10, namings["compose"])
	before := NewRing(members, 150)
	for gone := range members {
		after := NewRing(slices.Delete(slices.Clone(members), gone, gone+1), 150)
		moved := 0
		for i, hash := range keys() {
			was, is := members[before.Find(hash)].Name, after.members[after.Find(hash)].Name
			if was == is {
				continue
			}
			moved++
			if was != members[gone].Name {
				t.Fatalf("key %d moved from %s to %s when %s left", i, was, is, members[gone].Name)
			}
		}
		if share := float64(moved) / manyKeys; share < 0.08 || share > 0.12 {
			t.Errorf("%.1f %% of the keys moved when %s left", share*100, members[gone].Name)
		}
		// The member returns at the end of the list.
		back := NewRing(append(slices.Clone(after.members), members[gone]), 150)
		for i, hash := range keys() {
			if was, is := members[before.Find(hash)].Name, back.members[back.Find(hash)].Name; was != is {
				t.Fatalf("key %d was with %s, and is with %s when %s is back", i, was, is, members[gone].Name)
			}
		}
	}
}

func TestOrderOfMembersDoesNotMatter(t *testing.T) {
	members := membersNamed(20, namings["plain"])
	a := NewRing(members, 50)
	shuffled := slices.Clone(members)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	b := NewRing(shuffled, 50)
	for i, hash := range keys() {
		if x, y := members[a.Find(hash)].Name, shuffled[b.Find(hash)].Name; x != y {
			t.Fatalf("key %d is with %s in one order and with %s in another", i, x, y)
		}
	}
}

func TestWeightsAreProportional(t *testing.T) {
	members := membersNamed(6, namings["compose"])
	all := 0
	for i, weight := range []int{1, 2, 3, 4, 0, -5} { // values below 1 count as 1
		members[i].Weight = weight
		all += max(weight, 1)
	}
	counts := keysOf(NewRing(members, 150), len(members))
	for i, m := range members {
		want := float64(manyKeys) * float64(max(m.Weight, 1)) / float64(all)
		if got := float64(counts[i]); math.Abs(got-want) > 0.12*want {
			t.Errorf("weight %d got %.0f keys, want about %.0f", m.Weight, got, want)
		}
	}
}

// TestAGrownWeightOnlyTakes checks that an increased weight only moves keys to its
// member, and none between other members.
func TestAGrownWeightOnlyTakes(t *testing.T) {
	members := membersNamed(5, namings["compose"])
	grown := slices.Clone(members)
	grown[2].Weight = 2
	before, after := NewRing(members, 150), NewRing(grown, 150)
	for i, hash := range keys() {
		if was, is := before.Find(hash), after.Find(hash); was != is && is != 2 {
			t.Fatalf("key %d moved from %d to %d, and it is 2 that has grown", i, was, is)
		}
	}
}

func TestMembersOfTheSameName(t *testing.T) {
	members := []Member{{Name: "web", Weight: 1}, {Name: "web", Weight: 1}, {Name: "web", Weight: 1}}
	for i, n := range keysOf(NewRing(members, 150), len(members)) {
		if share := float64(n) / manyKeys; share < 0.25 || share > 0.42 {
			t.Errorf("member %d has %.0f %% of the keys", i, share*100)
		}
	}
}

func TestRingsAreBounded(t *testing.T) {
	members := membersNamed(1000, namings["plain"])
	for i := range members {
		members[i].Weight = 1000
	}
	members[0].Weight = 1
	counts, total := pointCounts(members, maxVirtualNodes)
	if total > maxPoints || total < maxPoints/2 {
		t.Errorf("there are %d points", total)
	}
	if counts[0] < 1 || counts[1] < 500*counts[0] || counts[1] != counts[999] {
		t.Errorf("the least weight has %d points, the greatest %d and %d", counts[0], counts[1], counts[999])
	}
	if counts, total := pointCounts(make([]Member, maxPoints+1), 1); total != maxPoints+1 || counts[maxPoints] != 1 {
		t.Errorf("of %d members, not everyone has a point", len(counts))
	}
}

func TestSmallRings(t *testing.T) {
	empty := NewRing(nil, 150)
	if got := empty.Find(1); got != -1 {
		t.Errorf("an empty ring has member %d", got)
	}
	if got := empty.FindAmong(1, func(int) bool { return true }); got != -1 {
		t.Errorf("an empty ring has member %d", got)
	}
	one := NewRing(membersNamed(1, namings["plain"]), 1)
	for _, hash := range keys()[:1000] {
		if got := one.Find(hash); got != 0 {
			t.Fatalf("the only member is %d", got)
		}
	}
	if got := one.FindAmong(1, func(int) bool { return false }); got != -1 {
		t.Errorf("no member accepts, got %d", got)
	}
}

// FuzzFindAmongIsARingOfThem checks that FindAmong agrees with Find on a ring of only the
// accepted members. Retries, full members and removed members rely on this property.
func FuzzFindAmongIsARingOfThem(f *testing.F) {
	f.Add(uint8(10), uint8(150), uint64(0b1011011101), uint64(7), "user-1")
	f.Add(uint8(3), uint8(1), uint64(0b010), uint64(0), "")
	f.Add(uint8(16), uint8(10), uint64(1)<<63, uint64(1), "x")
	f.Add(uint8(1), uint8(0), uint64(0), uint64(0), "x")
	f.Fuzz(func(t *testing.T, n, virtualNodes uint8, accepted, weights uint64, key string) {
		members := membersNamed(int(n%17), namings["plain"])
		var among []Member
		for i := range members {
			members[i].Weight = int(weights>>(i%61)) & 3
			if accepted>>(i%64)&1 == 1 {
				among = append(among, members[i])
			}
		}
		virtualNodes %= 40
		r, of := NewRing(members, int(virtualNodes)), NewRing(among, int(virtualNodes))
		if !slices.IsSorted(r.points) {
			t.Fatal("the points are not sorted")
		}
		hash := Hash(key)
		got := r.FindAmong(hash, func(i int) bool { return accepted>>(i%64)&1 == 1 })
		want := of.Find(hash)
		if (got < 0) != (want < 0) || (got >= 0 && members[got].Name != among[want].Name) {
			t.Fatalf("it is member %d of the whole ring, and %d of the others'", got, want)
		}
		if all := r.FindAmong(hash, func(int) bool { return true }); all != r.Find(hash) {
			t.Fatalf("among all it is %d, and without a condition %d", all, r.Find(hash))
		}
	})
}
