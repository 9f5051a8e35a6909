package balance

import (
	"context"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// reservations are the requests that a policy has sent to upstreams and that are
// not over. A request is counted from the moment in which its upstream is chosen
// until its handler returns or its client leaves, so that no two requests take the
// same room.
type reservations struct {
	mu     sync.Mutex
	byDial map[string]int // guarded by mu; without zeros
}

// reservationVar is where a request keeps what it has taken.
const reservationVar = "rgate.ring_hash"

// reservation is what one request has taken.
type reservation struct {
	of   *reservations
	dial string
	stop func() bool // ends the wait for the request's end
}

// take counts a request until it is over. The lock is held.
func (all *reservations) take(r *http.Request, dial string) {
	if all.byDial == nil {
		all.byDial = make(map[string]int)
	}
	all.byDial[dial]++
	stop := context.AfterFunc(r.Context(), func() { all.release(dial) })
	caddyhttp.SetVar(r.Context(), reservationVar, &reservation{all, dial, stop})
}

// giveBack ends what a request has taken so far, because it was tried in vain.
// The lock is not held, for it may have been another policy's.
func giveBack(r *http.Request) {
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
