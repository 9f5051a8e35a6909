package balance

import (
	"context"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// reservations counts the requests that a policy has sent to upstreams and that have not
// ended. A request is counted from the selection of its upstream until its handler
// returns or its client leaves, so that concurrent requests do not exceed the bound.
type reservations struct {
	mu     sync.Mutex
	byDial map[string]int // guarded by mu; without zeros
}

// reservationVar is the request variable that holds the reservation.
const reservationVar = "rgate.ring_hash"

// reservation is the upstream that a request is counted for.
type reservation struct {
	of   *reservations
	dial string
	stop func() bool // stops waiting for the request's end
}

// take counts a request until it has ended. The lock is held.
func (all *reservations) take(r *http.Request, dial string) {
	if all.byDial == nil {
		all.byDial = make(map[string]int)
	}
	all.byDial[dial]++
	stop := context.AfterFunc(r.Context(), func() { all.release(dial) })
	caddyhttp.SetVar(r.Context(), reservationVar, &reservation{all, dial, stop})
}

// releaseReservation ends the reservation of the request's previous attempt. The lock is not held:
// the reservation may belong to another policy.
func releaseReservation(r *http.Request) {
	mine, ok := caddyhttp.GetVar(r.Context(), reservationVar).(*reservation)
	if ok && mine.stop() {
		mine.of.release(mine.dial)
	}
}

func (all *reservations) release(dial string) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.byDial[dial]--; all.byDial[dial] == 0 {
		delete(all.byDial, dial)
	}
}
