package balance

import (
	"context"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// reservations counts the requests in flight that a policy has sent to each upstream. A
// request counts from the selection of its upstream until its handler returns or its
// client disconnects. Therefore, concurrent requests cannot exceed the bound.
type reservations struct {
	mu     sync.Mutex
	byDial map[string]int // guarded by mu; contains no zeros
}

// reservationVar is the request variable that holds the reservation.
const reservationVar = "rgate.ring_hash"

// reservation is the upstream for which a request is counted.
type reservation struct {
	of   *reservations
	dial string
	stop func() bool // unregisters the release on the end of the request
}

// take counts a request for an upstream until it ends. The caller holds the lock.
func (all *reservations) take(r *http.Request, dial string) {
	if all.byDial == nil {
		all.byDial = make(map[string]int)
	}
	all.byDial[dial]++
	stop := context.AfterFunc(r.Context(), func() { all.release(dial) })
	caddyhttp.SetVar(r.Context(), reservationVar, &reservation{all, dial, stop})
}

// releaseReservation ends the reservation of the request's previous attempt. The caller
// must not hold the lock, because the reservation can belong to another policy.
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
