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

// Status is the status of a source.
type Status struct {
	Name string `json:"name"`
	URL  string `json:"url"`

	// `up`, `down`, `starting` before the first scrape, or `standby` while another
	// gateway on the same database scrapes the source.
	Status string `json:"status"`

	// The time of the last successful scrape, and its number of series.
	LastScrape *time.Time `json:"last_scrape,omitempty"`
	Series     int        `json:"series"`

	// The error of the last scrape. Empty unless the status is `down`.
	Error string `json:"error,omitempty"`
}

// The values of Status.Status.
const (
	StatusUp       = "up"
	StatusDown     = "down"
	StatusStarting = "starting"
	StatusStandby  = "standby"
)

// stateStore is the part of store.Store that scrapers use.
type stateStore interface {
	// Lease reports whether this gateway holds the named lease. Only one gateway holds it
	// at a time.
	Lease(ctx context.Context, name string, ttl time.Duration) (held bool, err error)

	// LoadSource returns the saved state of a source and its record number. If the source
	// is unknown, LoadSource creates it with the given since.
	LoadSource(ctx context.Context, source string, since time.Time) (store.SourceState, int64, error)

	// SaveSource adds bytes to the minute of at and saves the state now, in one
	// transaction. It does nothing and returns false if the source's record number has
	// changed.
	SaveSource(ctx context.Context, source string, number int64, at time.Time, bytes map[store.Key]store.Bytes, before, now store.SourceState) (done bool, err error)
}

// errOvertaken means that another gateway recorded the source first.
var errOvertaken = errors.New("another gateway scraped the source at the same time")

// Scraper scrapes one source until it is stopped.
type Scraper struct {
	Source
	gateway   string // name of the gateway that configures the source
	request   *http.Request
	transport *http.Transport
	client    *http.Client
	store     stateStore
	logger    *zap.Logger
	since     time.Time // creation time

	// The saved state, valid if known is true. Only the run goroutine uses these fields.
	known  bool
	last   store.SourceState
	number int64

	mu     sync.Mutex
	status Status // Guarded by mu.

	cancel     context.CancelFunc
	running    sync.WaitGroup
	endPublish func()
}

// firstScrape is the delay before the first scrape. A configuration that fails to load is
// stopped before it scrapes.
const firstScrape = time.Second

// newScraper returns a scraper that is not running.
func newScraper(gateway string, source Source, archive stateStore, logger *zap.Logger) (*Scraper, error) {
	source.fillDefaults()
	request, err := source.request()
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", source.Name, err)
	}
	shown := *request.URL
	shown.RawQuery = "" // may contain secrets
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10}
	return &Scraper{
		Source: source, gateway: gateway, request: request, store: archive, since: time.Now(), transport: transport,
		client: &http.Client{
			Transport: transport,
			// A redirect target must not receive the header fields, which may contain
			// secrets.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		logger: logger.With(zap.String("source", source.Name)),
		status: Status{Name: source.Name, URL: shown.String(), Status: StatusStarting},
	}, nil
}

// Start starts a scraper for a source.
func Start(gateway string, source Source, archive stateStore, logger *zap.Logger) (*Scraper, error) {
	s, err := newScraper(gateway, source, archive, logger)
	if err != nil {
		return nil, err
	}
	s.endPublish = status.Dependencies.Publish(status.Process{}, s.dependency)
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.running.Go(func() { s.run(ctx) })
	return s, nil
}

// Stop stops the scraper and waits for a running scrape.
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

// leaseTime returns the lease duration, which each scrape renews.
func (s *Scraper) leaseTime() time.Duration {
	return max(3*time.Duration(s.Interval), 15*time.Second) + time.Duration(s.Timeout)
}

// turn scrapes the source once if this gateway holds the lease.
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

// scrape reads the source and records the new bytes.
func (s *Scraper) scrape(ctx context.Context, at time.Time) (series int, err error) {
	if !s.known {
		if s.last, s.number, err = s.store.LoadSource(ctx, s.Name, s.since); err != nil {
			return 0, fmt.Errorf("reading the previous counters from the store: %w", err)
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
		// The transaction may have been committed. The next scrape reloads the state.
		s.known = false
		return 0, fmt.Errorf("writing the counters to the store: %w", err)
	case !done:
		return 0, errOvertaken
	}
	s.last, s.number = next, s.number+1
	return len(r.counters), nil
}

// fetch requests and parses the source's metrics.
func (s *Scraper) fetch(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.Timeout))
	defer cancel()
	response, err := s.client.Do(s.request.Clone(ctx))
	if err != nil {
		return reading{}, plainError(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return reading{}, fmt.Errorf("unexpected response status %d", response.StatusCode)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(io.LimitReader(response.Body, maxScrape+1)); err != nil {
		return reading{}, plainError(err)
	}
	if body.Len() > maxScrape {
		return reading{}, fmt.Errorf("the response is larger than %d MiB: set url to metrics of bandwidth only", maxScrape>>20)
	}
	return read(&body, s.MaxSeries)
}

// plainError removes the method and the URL from client errors. The URL's query may
// contain secrets.
func plainError(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("no response within the timeout")
	}
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// setStatus updates the status and logs transitions from and to StatusDown.
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
		s.logger.Warn("bandwidth source is down, bytes will be recorded after the source recovers", zap.String("error", now.Error))
	case before.Status == StatusDown:
		s.logger.Info("bandwidth source is no longer down", zap.String("status", now.Status))
	}
}

// Status returns the current status of the source.
func (s *Scraper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// dependency returns the source's status for the gateway's health report.
func (s *Scraper) dependency() status.Dependency {
	now := s.Status()
	return status.Dependency{Name: "source " + now.Name + " at " + now.URL, Up: now.Status != StatusDown, Error: now.Error}
}

// Interface guard
var _ stateStore = (*store.Store)(nil)
