package traffic

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/rgate/rgate/policy"
)

func TestCoalesceHeadersAreEachOnesOwn(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("X-Backend", "yes")
		w.Header().Set("Content-Type", "text/x")
		return coalesceHello(w, nil)
	})
	var all sync.WaitGroup
	for i := range 5 {
		all.Go(func() {
			response, err := coalesceGet(t.Context(), b.URL, "X-Request-Id", fmt.Sprint("id-", i))
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if h := response.Header; h.Get("X-Own") != fmt.Sprint("id-", i) || h.Get("X-Backend") != "yes" || h.Get("Content-Type") != "text/x" {
				t.Errorf("the header is %v", response.Header)
			}
		})
	}
	coalesceEventually(t, "all wait", func() bool { return b.policy.waiting() == 4 })
	b.release()
	all.Wait()
}

func TestCoalesceLeaderLeaves(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), coalesceHello)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if got := coalesceText(coalesceGet(ctx, b.URL)); !strings.Contains(got, "canceled") {
			t.Errorf("the leader got %s", got)
		}
	}()
	coalesceEventually(t, "the leader is under way", func() bool { return b.reached.Load() == 1 })
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if got := coalesceText(coalesceGet(t.Context(), b.URL)); got != "200 hello" {
				t.Errorf("a follower got %s", got)
			}
		})
	}
	coalesceEventually(t, "the others follow", func() bool { return b.policy.waiting() == 3 })
	cancel()
	<-gone
	b.onlyFlight(t, func(f *flight) bool { return f.alone })
	b.release()
	all.Wait()
	if n := b.reached.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// onlyFlight waits until a condition holds of the flight that there is.
func (b *coalesceBackend) onlyFlight(t testing.TB, holds func(*flight) bool) {
	t.Helper()
	coalesceEventually(t, "the flight is as it should be", func() bool {
		b.policy.flights.mu.Lock()
		defer b.policy.flights.mu.Unlock()
		for _, f := range b.policy.flights.byURL {
			return holds(f)
		}
		return false
	})
}

// Once nobody waits any more, the backend need not go on.
func TestCoalesceAllLeave(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), coalesceHello)
	for _, order := range []string{"leader first", "follower first"} {
		t.Run(order, func(t *testing.T) {
			before := b.reached.Load()
			var ctxs [2]context.Context
			var cancels [2]context.CancelFunc
			var gone sync.WaitGroup
			for i := range 2 {
				ctxs[i], cancels[i] = context.WithCancel(t.Context())
				defer cancels[i]()
				gone.Go(func() { coalesceText(coalesceGet(ctxs[i], b.URL, "X-Request-Id", fmt.Sprint(order, i))) })
				coalesceEventually(t, "it is under way", func() bool { return b.reached.Load() == before+1 && b.policy.waiting() == i })
			}
			first, second := 0, 1
			if order == "follower first" {
				first, second = 1, 0
			}
			cancels[first]()
			coalesceEventually(t, "one has left", func() bool {
				return first == 1 && b.policy.waiting() == 0 || first == 0 && func() bool {
					b.onlyFlight(t, func(f *flight) bool { return f.alone })
					return true
				}()
			})
			cancels[second]()
			gone.Wait()
			coalesceEventually(t, "the request has ended", func() bool {
				_, ok := b.errs.Load(fmt.Sprint(order, 0))
				return ok && b.policy.flights.idle()
			})
		})
	}
}

func TestCoalesceErrorsAreShared(t *testing.T) {
	failure := caddyhttp.Error(http.StatusServiceUnavailable, policy.Failure{Cause: errors.New("down")})
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Retry-After", "7")
		return failure
	})
	for i, got := range b.together(t, []string{"X-Request-Id", "0"}, []string{"X-Request-Id", "1"}, []string{"X-Request-Id", "2"}) {
		var failed policy.Failure
		err, _ := b.errs.Load(fmt.Sprint(i))
		if got != "503 " || !errors.As(err.(error), &failed) {
			t.Errorf("client %d got %s, and the error %v", i, got, err)
		}
	}
	if n := b.reached.Load(); n != 1 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// A handler that panics is the leader's trouble alone.
func TestCoalescePanicBeforeTheAnswer(t *testing.T) {
	var first atomic.Bool
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, r *http.Request) error {
		if first.CompareAndSwap(false, true) {
			panic(http.ErrAbortHandler)
		}
		return coalesceHello(w, r)
	})
	got := b.together(t, nil, nil, nil)
	if !strings.Contains(got[0], "EOF") || got[1] != "200 hello" || got[2] != "200 hello" {
		t.Errorf("got %q", got)
	}
}

// A body that breaks off must look broken off to everybody.
func TestCoalesceBrokenBody(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "half of ")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	for i, got := range b.together(t, nil, nil, nil) {
		if !strings.Contains(got, "then unexpected EOF") {
			t.Errorf("client %d got %q", i, got)
		}
	}
}

func TestCoalesceStreams(t *testing.T) {
	more := make(chan string)
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusOK)
		flush := http.NewResponseController(w).Flush
		if err := flush(); err != nil {
			return err
		}
		for part := range more {
			if _, err := io.WriteString(w, part); err != nil {
				return err
			}
			if err := flush(); err != nil {
				return err
			}
		}
		return nil
	})
	const clients = 5
	responses := make(chan *http.Response, clients)
	for range clients {
		go func() {
			response, err := coalesceGet(t.Context(), b.URL)
			if err != nil {
				t.Error(err)
			}
			responses <- response
		}()
	}
	coalesceEventually(t, "all wait", func() bool { return b.policy.waiting() == clients-1 })
	b.release()
	var bodies []*bufio.Reader
	for range clients {
		response := <-responses
		defer response.Body.Close()
		bodies = append(bodies, bufio.NewReader(response.Body))
	}
	for i := range 4 {
		more <- fmt.Sprintf("line %d\n", i)
		for _, body := range bodies { // before the next one is written
			if got, err := body.ReadString('\n'); err != nil || got != fmt.Sprintf("line %d\n", i) {
				t.Fatalf("got %q, %v", got, err)
			}
		}
	}
	close(more)
	for _, body := range bodies {
		if got, err := io.ReadAll(body); err != nil || len(got) > 0 {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestCoalesceWaitsNoLongerThanItMay(t *testing.T) {
	b := coalesceServer(t, &Coalesce{MaxWait: caddy.Duration(time.Millisecond)}, coalesceHello)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if got := coalesceText(coalesceGet(t.Context(), b.URL)); got != "200 hello" {
				t.Errorf("got %s", got)
			}
		})
	}
	coalesceEventually(t, "all have reached the backend", func() bool { return b.reached.Load() == 3 })
	b.release()
	all.Wait()
}

// Who asks after a change gets an answer that began after it.
func TestCoalesceAfterAChange(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), coalesceHello)
	var all sync.WaitGroup
	get := func() { all.Go(func() { coalesceText(coalesceGet(t.Context(), b.URL+"/a?b=c")) }) }
	get()
	coalesceEventually(t, "one is under way", func() bool { return b.reached.Load() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		coalesceEventually(t, "the change is under way", func() bool { return b.reached.Load() == 2 })
		cancel()
	}()
	coalesceText(coalesceDo(ctx, http.MethodPut, b.URL+"/a"))
	coalesceEventually(t, "the change is over", b.policy.flights.idle)
	get()
	coalesceEventually(t, "another one is under way", func() bool { return b.reached.Load() == 3 })
	get()
	coalesceEventually(t, "the last one follows that", func() bool { return b.policy.waiting() == 1 })
	b.release()
	all.Wait()
}

func TestCoalesceHead(t *testing.T) {
	b := coalesceServer(t, new(Coalesce), func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", "5")
		return coalesceHello(w, nil)
	})
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			response, err := coalesceDo(t.Context(), http.MethodHead, b.URL)
			if err != nil {
				t.Error(err)
				return
			}
			response.Body.Close()
			if response.ContentLength != 5 {
				t.Errorf("the length is %d", response.ContentLength)
			}
		})
	}
	coalesceEventually(t, "all wait", func() bool { return b.policy.waiting() == 2 })
	b.release()
	all.Wait()
}
