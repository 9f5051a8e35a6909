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

// calls holds the requests in flight whose responses can be shared. Package singleflight
// of golang.org/x/sync returns complete results. This package streams bodies to all
// clients, and the response header determines whether a response is shared.
type calls struct {
	seed  maphash.Seed
	limit int64 // maximum buffered bytes of a body

	mu          sync.Mutex
	byURL       [256]*call           // hash table with chaining. Guarded by mu.
	count       int                  // number of calls. Guarded by mu.
	unshareable map[uint64]time.Time // time until which requests are not shared, by hash. Guarded by mu.
}

const (
	unshareableFor = 10 * time.Second // time for which requests are not shared after a response that cannot be shared
	maxUnshareable = 1024             // maximum number of entries in unshareable

	// patience is the initial time that a slow client may delay the others. It grows by
	// half of the elapsed time.
	patience = 500 * time.Millisecond
)

func newCalls(limit int64) *calls {
	return &calls{seed: maphash.MakeSeed(), limit: limit, unshareable: make(map[uint64]time.Time)}
}

// call is a request in flight. The request of the first client is the leader. Other
// requests can join until the response begins, so that no client receives a response that
// began before its request.
type call struct {
	sharedContext
	request http.Request // the leader's request with the shared context
	calls   *calls
	url     uint64
	query   string
	key     *requestKey // from requestKeys, returned when the call is closed
	next    *call       // next call in the chain. Guarded by calls.mu.

	followers int  // number of followers that wait or read. Guarded by calls.mu.
	alone     bool // the leader's client has closed the connection. Guarded by calls.mu.
	closed    bool // requests can no longer join. Guarded by calls.mu.

	*followed // allocated when the first follower joins. Set under calls.mu, before the call is closed.
}

// followed is the state of a call with followers.
type followed struct {
	begun   chan struct{} // closed when the outcome is published
	outcome outcome       // set before begun is closed
	body    stream
}

// outcome is the result of a call.
type outcome struct {
	shared bool               // if false, each follower sends its own request to the backend
	err    error              // the error of a handler; nil if there is a response
	status int                // status of the response; its body is in the stream
	header httpx.HeaderChange // the changes made to the response header
	varied httpcache.Variant  // the fields that followers must have in common with the leader
	kind   [6]string          // values of the header fields in kinds
}

var requestKeys = sync.Pool{New: func() any { return new(requestKey) }}

// join returns the call that a request can follow, and a reader of its body. If there is
// none, the request becomes the leader of a new call that owns the key, and the reader is
// nil. The call is nil if a recent response for the URL could not be shared.
func (t *calls) join(r *http.Request, key *requestKey) (*call, *reader) {
	url := t.hashOf(key.asked[1], plainPath(key.asked[2]))
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.chain(url)
	for f := *first; f != nil; f = f.next {
		if f.url == url && f.key.equal(key, r.Header) {
			f.followers++
			if f.followed == nil {
				f.followed = &followed{begun: make(chan struct{}), body: stream{limit: t.limit, patience: patience}}
			}
			return f, f.body.reader()
		}
	}
	if len(t.unshareable) > 0 && t.isUnshareable(url, key.query) {
		return nil, nil
	}
	f := &call{calls: t, url: url, query: key.query, key: key, next: *first}
	f.first, f.owner = r.Context(), f
	*first = f
	t.count++
	return f, nil
}

// chain returns the chain for a hash. The caller must hold mu.
func (t *calls) chain(url uint64) **call { return &t.byURL[url%uint64(len(t.byURL))] }

// hashOf returns the hash of a host and path.
func (t *calls) hashOf(host, path string) uint64 {
	return maphash.String(t.seed, host)*31 ^ maphash.String(t.seed, path)
}

func (t *calls) unshareableKey(url uint64, query string) uint64 {
	return url*31 ^ maphash.String(t.seed, query)
}

// isUnshareable reports whether a recent response for a URL could not be shared. The
// caller must hold mu.
func (t *calls) isUnshareable(url uint64, query string) bool {
	key := t.unshareableKey(url, query)
	until, ok := t.unshareable[key]
	if ok && !time.Now().Before(until) {
		delete(t.unshareable, key)
		ok = false
	}
	return ok
}

// forget closes the calls for a resource, which may have been modified.
func (t *calls) forget(url uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at := t.chain(url); *at != nil; {
		if f := *at; f.url == url {
			*at = f.next
			f.removed()
		} else {
			at = &f.next
		}
	}
}

// idle reports whether there are no calls.
func (t *calls) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count == 0
}

// close closes the call to further requests and reports whether it has followers.
func (f *call) close() bool {
	t := f.calls
	t.mu.Lock()
	defer t.mu.Unlock()
	f.remove()
	return f.followers > 0
}

// remove removes the call from its chain. The caller must hold calls.mu.
func (f *call) remove() {
	if f.closed {
		return
	}
	at := f.calls.chain(f.url)
	for *at != f {
		at = &(*at).next
	}
	*at = f.next
	f.removed()
}

// removed updates the call after its removal from the chain. The caller must hold
// calls.mu.
func (f *call) removed() {
	f.closed, f.next = true, nil
	f.calls.count--
	f.key.reset()
	requestKeys.Put(f.key)
	f.key = nil
}

// publish publishes the outcome to the followers. It must be called once, after close.
func (f *call) publish(o outcome) {
	if f.followed != nil { // followed does not change after close
		f.outcome = o
		close(f.begun)
	}
}

// publishUnshared makes each follower send its own request. If remember is true, later
// requests for the URL are not shared for unshareableFor.
func (f *call) publishUnshared(remember bool) {
	if t := f.calls; remember {
		t.mu.Lock()
		if len(t.unshareable) >= maxUnshareable {
			clear(t.unshareable)
		}
		t.unshareable[t.unshareableKey(f.url, f.query)] = time.Now().Add(unshareableFor)
		t.mu.Unlock()
	}
	f.publish(outcome{})
}

// leave removes a follower that no longer waits or reads.
func (f *call) leave(r *reader) {
	r.leave()
	f.calls.mu.Lock()
	defer f.calls.mu.Unlock()
	f.followers--
	f.cancelIfUnused()
}

// leaderLeft records that the leader's client has closed the connection.
func (f *call) leaderLeft() {
	f.calls.mu.Lock()
	defer f.calls.mu.Unlock()
	f.alone = true
	f.cancelIfUnused()
}

func (f *call) cancelIfUnused() {
	if f.alone && f.followers == 0 {
		f.remove()
		f.cancel(context.Cause(f.first))
	}
}
