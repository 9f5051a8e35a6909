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

// keySource keeps the keys of a document up to date. If a refresh fails, the last keys
// stay in use.
type keySource struct {
	name  string // name of the document in log entries
	load  func(context.Context) (document, error)
	parse parser
	log   func() *zap.Logger

	keys   atomic.Pointer[keySet] // nil until the first successful read
	text   tokenDigest            // digest of the document with the current keys
	wanted chan struct{}          // signals an immediate refresh
	cancel context.CancelFunc
	done   chan struct{}

	waiting atomic.Int32 // number of requests waiting for a refresh

	mu      sync.Mutex
	loading chan struct{} // closed after the refresh in progress; nil if there is none. Guarded by mu.
	begun   time.Time     // start of the last refresh. Guarded by mu.
}

// parser parses keys. Its second result holds the reasons for ignored keys.
type parser func(text []byte) (*keySet, []error, error)

// document is the content of a key source.
type document struct {
	text  []byte
	fresh time.Duration // freshness lifetime
}

const (
	// The maximum time that a request waits for keys, and the maximum number of waiting
	// requests.
	keyPatience        = time.Second
	maxQueuedRefreshes = 256

	// The minimum interval between refreshes that requests trigger.
	minKeyInterval  = 5 * time.Second
	minFirstAttempt = time.Second // until the first keys are loaded

	// The timeout of a refresh.
	loadTimeout = 10 * time.Second

	minBackoff = time.Second
	maxBackoff = 30 * time.Second
)

// start starts the background refresh.
func (s *keySource) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.done, s.wanted = cancel, make(chan struct{}), make(chan struct{}, 1)
	s.loading = make(chan struct{}) // makes the first request wait
	go s.run(ctx)
}

// Destruct stops the background refresh and waits for its goroutine to return.
func (s *keySource) Destruct() error {
	s.cancel()
	<-s.done
	return nil
}

// current returns the current keys, or nil if none are loaded.
func (s *keySource) current() *keySet { return s.keys.Load() }

// newer returns the current keys. If they are the given ones, it first triggers a refresh
// and waits up to keyPatience. Refreshes are rate-limited, and concurrent requests share
// one.
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

// requestRefresh triggers a refresh and returns a channel that is closed afterwards. It
// returns nil if newer keys are loaded already or the last refresh is too recent.
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
		s.wanted <- struct{}{} // does not block: begin drains the channel
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
	failures := 0 // consecutive failures
	for {
		s.begin()
		wait, err := s.refresh(ctx)
		s.end()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if failures > 0 {
				s.log().Info("loaded token keys after a failure", zap.String("from", s.name))
			}
			failures = 0
		} else {
			if failures == 0 {
				s.log().Error("loading token keys failed, any previous keys stay in use until a retry succeeds",
					zap.String("from", s.name), zap.Bool("has_keys", s.current() != nil), zap.Error(err))
			}
			wait = min(minBackoff<<min(failures, 10), maxBackoff)
			failures++
		}
		// Add jitter so that many gateways do not refresh simultaneously, and stay ahead
		// of the expiry.
		select {
		case <-time.After(wait - rand.N(wait/10)):
		case <-s.wanted:
		case <-ctx.Done():
			return
		}
	}
}

// refresh loads the keys once and returns the freshness lifetime of the document.
func (s *keySource) refresh(ctx context.Context) (fresh time.Duration, err error) {
	defer func() { // a malformed document must not crash the gateway
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			s.log().Error("panic while loading token keys", zap.String("from", s.name), zap.Error(err),
				zap.ByteString("stack", debug.Stack()))
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

// take replaces the keys if the document has changed.
func (s *keySource) take(text []byte) error {
	sum := tokenDigest(sha256.Sum256(text))
	if s.current() != nil && sum == s.text {
		return nil // keeps cached tokens valid
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
