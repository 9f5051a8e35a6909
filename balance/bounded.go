package balance

import "math"

// The bound follows Mirrokni, Thorup and Zadimoghaddam, Consistent Hashing with Bounded
// Loads, 2016. With n members and m requests, including the new one, each member has at
// most ceil(c m/n) requests. Keys of a full member go to the next member on the ring. c
// is above 1, so there is always a member with room.

// load is the total load of several members.
type load struct {
	requests int // in flight
	weights  int
}

// capacity returns the maximum number of requests of a member with the given weight. It
// includes the new request.
func (l load) capacity(factor float64, weight int) int {
	room := factor * float64(l.requests+1) * float64(weight) / float64(max(l.weights, weight))
	return int(math.Ceil(room - room*1e-9)) // compensates for rounding errors
}
