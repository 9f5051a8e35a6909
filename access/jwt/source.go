package jwt

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// keySource keeps the keys of a document up to date. If it cannot be read, the last keys
// stay.
type keySource struct {
	name  string // of the document, for the log
	load  func(context.Context) (document, error)
	parse parser
	log   func() *zap.Logger

	keys   atomic.Pointer[keySet] // nil until the document was read for the first time
	text   tokenDigest            // of the document that the keys are from
	wanted chan struct{}          // requests an immediate refresh
	cancel context.CancelFunc
	done   chan struct{}

	waiting atomic.Int32 // requests that wait for loading

	mu      sync.Mutex
	loading chan struct{} // closed after the refresh in progress; nil without one. Guarded by mu.
	begun   time.Time     // when it was last read. Guarded by mu.
}

// parser parses keys. Its second result has the reasons why some were ignored.
type parser func(text []byte) (*keySet, []error, error)

// document is the content of a source of keys.
type document struct {
	text  []byte
	fresh time.Duration // how long it need not be read again
}

const (
	// The time limit of requests that wait for keys, and their maximum number.
	keyPatience        = time.Second
	maxQueuedRefreshes = 256

	// The minimum interval between refreshes that requests cause.
	minKeyInterval  = 5 * time.Second
	minFirstAttempt = time.Second // while there are no keys at all

	// The time limit of a refresh.
	loadTimeout = 10 * time.Second

	minBackoff = time.Second
	maxBackoff = 30 * time.Second
)

// start starts reading the document.
func (s *keySource) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done, s.wanted = cancel, make(chan struct{}), make(chan struct{}, 1)
	s.loading = make(chan struct{}) // so that the first request waits
	go s.run(ctx)
}

// Destruct stops reading the document and waits for the goroutine to end.
func (s *keySource) Destruct() error {
	s.cancel()
	<-s.done
	return nil
}

// current returns the keys; nil if there are none yet.
func (s *keySource) current() *keySet { return s.keys.Load() }

// newer refreshes the keys if they are still those given and the last refresh is not
// recent, and waits a short time. Concurrent requests wait for the same refresh.
func (s *keySource) newer(ctx context.Context, than *keySet) *keySet {
	loading := s.requestRefresh(than)
	if loading == nil {
		return s.current()
	}
	defer s.waiting.Add(-1)
	if s.waiting.Add(1) > maxQueuedRefreshes {
		return s.current()
	}
	timer := time.NewTimer(keyPatience)
	defer timer.Stop()
	select {
	case <-loading:
	case <-timer.C:
	case <-ctx.Done():
	}
	return s.current()
}

// requestRefresh requests a refresh and returns a channel to wait for; nil if a refresh is
// not possible now.
func (s *keySource) requestRefresh(than *keySet) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current() != than {
		return nil
	}
	if s.loading == nil {
		interval := minKeyInterval
		if than == nil {
			interval = minFirstAttempt
		}
		if time.Since(s.begun) < interval {
			return nil
		}
		s.loading = make(chan struct{})
		s.wanted <- struct{}{} // there is room: begin empties it
	}
	return s.loading
}

func (s *keySource) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = time.Now()
	if s.loading == nil {
		s.loading = make(chan struct{})
	}
	select {
	case <-s.wanted:
	default:
	}
}

func (s *keySource) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.loading)
	s.loading = nil
}

// run refreshes the keys until the source is stopped.
func (s *keySource) run(ctx context.Context) {
	defer close(s.done)
	failures := 0 // in a row
	for {
		s.begin()
		wait, err := s.refresh(ctx)
		s.end()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if failures > 0 {
				s.log().Info("reading the token keys succeeded again", zap.String("from", s.name))
			}
			failures = 0
		} else {
			if failures == 0 {
				s.log().Error("reading the token keys failed, the last ones stay in use until a retry succeeds",
					zap.String("from", s.name), zap.Bool("has_keys", s.current() != nil), zap.Error(err))
			}
			wait = min(minBackoff<<min(failures, 10), maxBackoff)
			failures++
		}
		// Spread the requests of many gateways, before the document expires.
		select {
		case <-time.After(wait - rand.N(wait/10)):
		case <-s.wanted:
		case <-ctx.Done():
			return
		}
	}
}

// refresh reads the document once and returns the freshness of its keys.
func (s *keySource) refresh(ctx context.Context) (fresh time.Duration, err error) {
	defer func() { // whatever is in the document, the gateway lives on
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	read, err := s.load(ctx)
	if err != nil {
		return 0, err
	}
	return read.fresh, s.take(read.text)
}

// take replaces the keys if the text has changed.
func (s *keySource) take(text []byte) error {
	sum := tokenDigest(sha256.Sum256(text))
	if s.current() != nil && sum == s.text {
		return nil // cached tokens remain
	}
	keys, left, err := s.parse(text)
	if err != nil {
		return err
	}
	logLeftOut(s.log(), s.name, left)
	s.text = sum
	s.keys.Store(keys)
	return nil
}

func logLeftOut(logger *zap.Logger, from string, left []error) {
	for _, why := range left {
		logger.Warn("ignoring a token key", zap.String("from", from), zap.Error(why))
	}
}
