package balance

import "math"

// The bound is that of Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing
// with Bounded Loads, 2016: with n members and m requests, the new one included,
// none takes more than ceil(c m/n). A key whose member is full goes on to the next
// one, as though the full one were not there. Since c is above 1, there is always
// one with room.

// load is what several members have to do together.
type load struct {
	requests int // in flight
	weights  int
}

// capacity is how many requests a member of some weight may have when one more
// has come.
func (l load) capacity(factor float64, weight int) int {
	room := factor * float64(l.requests+1) * float64(weight) / float64(max(l.weights, weight))
	return int(math.Ceil(room - room*1e-9)) // rounding shall not make a whole number one more
}
