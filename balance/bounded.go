package balance

import "math"

// The bound is that of Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing
// with Bounded Loads, 2016: with n members and m requests, including the new one, no
// member takes more than ceil(c m/n). A key whose member is full goes to the next member
// on the ring. Since c is above 1, one always has room.

// load is the sum of the requests and weights of several members.
type load struct {
	requests int // in flight
	weights  int
}

// capacity returns the maximum number of requests of a member of some weight, including
// one new request.
func (l load) capacity(factor float64, weight int) int {
	room := factor * float64(l.requests+1) * float64(weight) / float64(max(l.weights, weight))
	return int(math.Ceil(room - room*1e-9)) // so that rounding errors do not add one
}
