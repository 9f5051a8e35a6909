package coalesce

import (
	"context"
	"hash/maphash"
	"net/http"
	"sync"
	"time"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/traffic/httpcache"
)

// flights are the requests under way whose answers others may share. Package
// singleflight of golang.org/x/sync hands out a result when it is complete; here
// the body goes on to everybody while it comes, and it takes a look at the header
// to know whether it may.
type flights struct {
	seed  maphash.Seed
	limit int64 // of what is kept of a body

	mu    sync.Mutex
	byURL [256]*flight         // chains of those with the same end of their hash. Guarded by mu.
	count int                  // of them all. Guarded by mu.
	apart map[uint64]time.Time // the hashes of what cannot be shared, and until when. Guarded by mu.
}

const (
	apartFor  = 10 * time.Second // how long it is remembered that something cannot be shared
	apartMost = 1024             // of how many

	// How long the clients who share an answer wait for a slow one among them, beside
	// half of the time.
	patience = 500 * time.Millisecond
)

func newFlights(limit int64) *flights {
	return &flights{seed: maphash.MakeSeed(), limit: limit, apart: make(map[uint64]time.Time)}
}

// flight is a request under way. The one who sent it leads; others may follow until
// the answer begins, and so nobody gets an answer that had begun before they asked.
type flight struct {
	lifeline
	request http.Request // as it goes to the backend: the leader's, on the lifeline
	flights *flights
	url     uint64
	query   string
	key     *requestKey // of requestKeys, until the flight is sealed
	next    *flight     // in the chain. Guarded by flights.mu.

	followers int  // who wait for the answer or read it. Guarded by flights.mu.
	alone     bool // the leader's client has left. Guarded by flights.mu.
	sealed    bool // nobody can join any more. Guarded by flights.mu.

	*company // nil if nobody has joined. Set under flights.mu, before it is sealed.
}

// company is what a flight has if somebody follows.
type company struct {
	begun   chan struct{} // closed when the outcome is known
	outcome outcome       // set before begun is closed
	body    stream
}

// outcome is what became of a flight.
type outcome struct {
	shared bool               // if not, each request goes to the backend itself
	err    error              // what the handlers returned in place of an answer
	status int                // of the answer; if there is one, the body is in the stream
	header httpx.HeaderChange // what has become of the header
	varied httpcache.Variant  // what a request must have in common with the leader's
	kind   [6]string          // what another answer must have to be the same
}

var requestKeys = sync.Pool{New: func() any { return new(requestKey) }}

// join finds the flight that a request may share, and then has a reader of its
// body. If there is none, the request leads a new one, which keeps the key, and the
// reader is nil. The flight is nil if it is known that the answer cannot be shared.
func (t *flights) join(r *http.Request, key *requestKey) (*flight, *reader) {
	url := t.hashOf(key.asked[1], plainPath(key.asked[2]))
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.chain(url)
	for f := *first; f != nil; f = f.next {
		if f.url == url && f.key.equal(key, r.Header) {
			f.followers++
			if f.company == nil {
				f.company = &company{begun: make(chan struct{}), body: stream{limit: t.limit, patience: patience}}
			}
			return f, f.body.reader()
		}
	}
	if len(t.apart) > 0 && t.isApart(url, key.query) {
		return nil, nil
	}
	f := &flight{flights: t, url: url, query: key.query, key: key, next: *first}
	f.first, f.owner = r.Context(), f
	*first = f
	t.count++
	return f, nil
}

// chain is where the flights with a hash begin, and others. mu is held.
func (t *flights) chain(url uint64) **flight { return &t.byURL[url%uint64(len(t.byURL))] }

// hashOf is the hash of what a client asks for, whatever the query.
func (t *flights) hashOf(host, path string) uint64 {
	return maphash.String(t.seed, host)*31 ^ maphash.String(t.seed, path)
}

func (t *flights) apartKey(url uint64, query string) uint64 {
	return url*31 ^ maphash.String(t.seed, query)
}

// isApart reports whether it is known that what is asked for cannot be shared. mu is
// held.
func (t *flights) isApart(url uint64, query string) bool {
	key := t.apartKey(url, query)
	until, ok := t.apart[key]
	if ok && !time.Now().Before(until) {
		delete(t.apart, key)
		ok = false
	}
	return ok
}

// forget keeps later requests from sharing what was asked for before: something may
// have changed there.
func (t *flights) forget(url uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at := t.chain(url); *at != nil; {
		if f := *at; f.url == url {
			*at = f.next
			f.close()
		} else {
			at = &f.next
		}
	}
}

// idle reports whether nothing is under way.
func (t *flights) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count == 0
}

// seal keeps others from joining, and reports whether somebody has.
func (f *flight) seal() bool {
	t := f.flights
	t.mu.Lock()
	defer t.mu.Unlock()
	f.remove()
	return f.followers > 0
}

// remove takes the flight out of those that can be joined. flights.mu is held.
func (f *flight) remove() {
	if f.sealed {
		return
	}
	at := f.flights.chain(f.url)
	for *at != f {
		at = &(*at).next
	}
	*at = f.next
	f.close()
}

// close notes that nobody can join any more, now that it is out of its chain.
// flights.mu is held.
func (f *flight) close() {
	f.sealed, f.next = true, nil
	f.flights.count--
	f.key.reset()
	requestKeys.Put(f.key)
	f.key = nil
}

// land tells the followers what became of the flight, once.
func (f *flight) land(o outcome) {
	if f.company != nil { // which nobody brings after seal
		f.outcome = o
		close(f.begun)
	}
}

// landApart sends the followers their own way. If it is about the answer, those who
// come later need not wait for it in vain.
func (f *flight) landApart(remember bool) {
	if t := f.flights; remember {
		t.mu.Lock()
		if len(t.apart) >= apartMost {
			clear(t.apart)
		}
		t.apart[t.apartKey(f.url, f.query)] = time.Now().Add(apartFor)
		t.mu.Unlock()
	}
	f.land(outcome{})
}

// leave is called by a follower who no longer waits or reads.
func (f *flight) leave(r *reader) {
	r.leave()
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	f.followers--
	f.cutIfNobody()
}

// leaderLeft is called when the leader's client has left.
func (f *flight) leaderLeft() {
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	f.alone = true
	f.cutIfNobody()
}

func (f *flight) cutIfNobody() {
	if f.alone && f.followers == 0 {
		f.remove()
		f.cut(context.Cause(f.first))
	}
}
