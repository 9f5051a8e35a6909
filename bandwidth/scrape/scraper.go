package scrape

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/internal/status"
)

// Status is how a source is.
type Status struct {
	Name string `json:"name"`
	URL  string `json:"url"`

	// `up`, `down`, `starting` before its first scrape, or `standby` while another
	// gateway on the same database reads it.
	Status string `json:"status"`

	// When it was last read, and how many counters it had.
	LastScrape *time.Time `json:"last_scrape,omitempty"`
	Series     int        `json:"series"`

	// Why it is down.
	Error string `json:"error,omitempty"`
}

// The states of a source.
const (
	StatusUp       = "up"
	StatusDown     = "down"
	StatusStarting = "starting"
	StatusStandby  = "standby"
)

// stateStore is where what is remembered of sources is kept, beside their bytes: a Ledger.
type stateStore interface {
	// Lease is held by one gateway at a time.
	Lease(ctx context.Context, name string, ttl time.Duration) (held bool, err error)

	// LoadSource returns what is remembered of a source, and the number of its last
	// record. What is not known yet is remembered to have been asked for since then.
	LoadSource(ctx context.Context, source string, since time.Time) (store.SourceState, int64, error)

	// SaveSource adds bytes to the minute of a time and remembers what is new, all or
	// nothing. Nothing is done if the last record is not the one of that number.
	SaveSource(ctx context.Context, source string, number int64, at time.Time, bytes map[store.Key]store.Bytes, before, now store.SourceState) (done bool, err error)
}

// errOvertaken is the error of a scrape that another gateway has been ahead of.
var errOvertaken = errors.New("another gateway has read the source in the meantime")

// Scraper reads one source until it is stopped.
type Scraper struct {
	Source
	gateway   string // whose configuration has it
	request   *http.Request
	transport *http.Transport
	client    *http.Client
	store     stateStore
	logger    *zap.Logger
	since     time.Time // when it was made

	// What is remembered, if it is known. Used by the goroutine alone.
	known  bool
	last   store.SourceState
	number int64

	mu     sync.Mutex
	status Status // Guarded by mu.

	cancel     context.CancelFunc
	running    sync.WaitGroup
	endPublish func()
}

// firstScrape is when a source is first read after the start: a configuration that is
// only tried is gone by then.
const firstScrape = time.Second

// newScraper makes a scraper that does not run yet.
func newScraper(gateway string, source Source, archive stateStore, logger *zap.Logger) (*Scraper, error) {
	source.fillDefaults()
	request, err := source.request()
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", source.Name, err)
	}
	shown := *request.URL
	shown.RawQuery = "" // which may have a secret
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10}
	return &Scraper{
		Source: source, gateway: gateway, request: request, store: archive, since: time.Now(), transport: transport,
		client: &http.Client{
			Transport: transport,
			// Another address would get the header, and the secrets in it, too.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		logger: logger.With(zap.String("source", source.Name)),
		status: Status{Name: source.Name, URL: shown.String(), Status: StatusStarting},
	}, nil
}

// Start begins to read a source.
func Start(gateway string, source Source, archive stateStore, logger *zap.Logger) (*Scraper, error) {
	s, err := newScraper(gateway, source, archive, logger)
	if err != nil {
		return nil, err
	}
	s.endPublish = status.Dependencies.Publish(status.Process{}, func() status.Dependency { return s.dependency() })
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.running.Go(func() { s.run(ctx) })
	return s, nil
}

// Stop ends the reading and waits for it.
func (s *Scraper) Stop() {
	s.endPublish()
	s.cancel()
	s.running.Wait()
	s.transport.CloseIdleConnections()
}

func (s *Scraper) run(ctx context.Context) {
	timer := time.NewTimer(firstScrape)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case at := <-timer.C:
			s.turn(ctx, at)
			timer.Reset(max(time.Until(at.Add(time.Duration(s.Interval))), 0))
		}
	}
}

// leaseTime is for how long the source is this gateway's after each scrape.
func (s *Scraper) leaseTime() time.Duration {
	return max(3*time.Duration(s.Interval), 15*time.Second) + time.Duration(s.Timeout)
}

// turn reads the source once, if it is this gateway's turn.
func (s *Scraper) turn(ctx context.Context, at time.Time) {
	held, err := s.store.Lease(ctx, "source "+s.Name, s.leaseTime())
	if err == nil && !held {
		s.known = false
		s.setStatus(Status{Status: StatusStandby})
		return
	}
	series := 0
	if err == nil {
		series, err = s.scrape(ctx, at)
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errOvertaken):
		s.known = false
	case err != nil:
		s.setStatus(Status{Status: StatusDown, Error: err.Error()})
	default:
		s.setStatus(Status{Status: StatusUp, LastScrape: &at, Series: series})
	}
}

// scrape reads the source and records what is new.
func (s *Scraper) scrape(ctx context.Context, at time.Time) (series int, err error) {
	if !s.known {
		if s.last, s.number, err = s.store.LoadSource(ctx, s.Name, s.since); err != nil {
			return 0, fmt.Errorf("the store does not tell what was read before: %w", err)
		}
		s.known = true
	}
	r, err := s.fetch(ctx)
	if err != nil {
		return 0, err
	}
	grown, next, err := delta(s.last, r, at.Unix(), s.MaxSeries)
	if err != nil {
		return 0, err
	}
	done, err := s.store.SaveSource(ctx, s.Name, s.number, at, grown, s.last, next)
	switch {
	case err != nil:
		// It may have been recorded all the same: that is found out next time.
		s.known = false
		return 0, fmt.Errorf("the store does not take what was read: %w", err)
	case !done:
		return 0, errOvertaken
	}
	s.last, s.number = next, s.number+1
	return len(r.counters), nil
}

// fetch asks the source for its metrics.
func (s *Scraper) fetch(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.Timeout))
	defer cancel()
	response, err := s.client.Do(s.request.Clone(ctx))
	if err != nil {
		return reading{}, plainError(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return reading{}, fmt.Errorf("it answers with status %d", response.StatusCode)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(io.LimitReader(response.Body, maxScrape+1)); err != nil {
		return reading{}, plainError(err)
	}
	if body.Len() > maxScrape {
		return reading{}, fmt.Errorf("its metrics have more than %d MiB: name a page with the bandwidth alone", maxScrape>>20)
	}
	return read(&body, s.MaxSeries)
}

// plainError leaves out what a client's errors repeat: the method and the URL, which
// may have a secret in its query.
func plainError(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("it did not answer in time")
	}
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// setStatus remembers how the source is, and logs when that changes.
func (s *Scraper) setStatus(now Status) {
	s.mu.Lock()
	before := s.status
	now.Name, now.URL = before.Name, before.URL
	if now.LastScrape == nil {
		now.LastScrape, now.Series = before.LastScrape, before.Series
	}
	s.status = now
	s.mu.Unlock()
	switch {
	case now.Status == before.Status:
	case now.Status == StatusDown:
		s.logger.Warn("source of bandwidth is down; what it counts meanwhile is read when it is back", zap.String("error", now.Error))
	case before.Status == StatusDown:
		s.logger.Info("source of bandwidth is back", zap.String("status", now.Status))
	}
}

// Status returns how the source is.
func (s *Scraper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// dependency is the source as the gateway's health sees it.
func (s *Scraper) dependency() status.Dependency {
	now := s.Status()
	return status.Dependency{Name: "source " + now.Name + " at " + now.URL, Up: now.Status != StatusDown, Error: now.Error}
}

// Interface guard
var _ stateStore = (*store.Store)(nil)
