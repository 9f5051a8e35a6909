package balance

import (
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// tables holds the table of histories, which survives configuration reloads.
var tables = caddy.NewUsagePool()

const theTable = "histories"

// table holds the histories of upstreams by address. All methods are safe for concurrent
// use. Lookups take no lock.
type table struct {
	byDial sync.Map // maps addresses to *history

	mu      sync.Mutex // held to add and remove histories
	size    int
	sweepAt int // number of histories that triggers a removal of blank ones
}

// acquireTable returns the table of the process. The caller must release it.
func acquireTable() (*table, error) {
	value, _, err := tables.LoadOrNew(theTable, func() (caddy.Destructor, error) { return new(table), nil })
	if err != nil {
		return nil, err
	}
	return value.(*table), nil
}

func releaseTable() error {
	_, err := tables.Delete(theTable)
	return err
}

// Destruct implements caddy.Destructor.
func (t *table) Destruct() error { return nil }

// find returns the history of an upstream, or nil.
func (t *table) find(dial string) *history {
	if value, ok := t.byDial.Load(dial); ok {
		return value.(*history)
	}
	return nil
}

// of returns the history of an upstream and creates it if needed. When there are sweepAt
// histories, it removes the blank ones before it creates another, which limits their
// number.
func (t *table) of(dial string, now time.Duration) *history {
	if h := t.find(dial); h != nil {
		return h
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.find(dial); h != nil {
		return h
	}
	if t.size >= t.sweepAt {
		t.byDial.Range(func(dial, value any) bool {
			if value.(*history).isBlank(now) {
				t.byDial.Delete(dial)
				t.size--
			}
			return true
		})
		t.sweepAt = 2*t.size + 64
	}
	h := new(history)
	t.byDial.Store(dial, h)
	t.size++
	return h
}

// isBlank reports whether a history has no effect on selection and no waiting requests.
func (h *history) isBlank(now time.Duration) bool {
	return h.waiting.Load() == 0 &&
		now-time.Duration(h.updated.Load()) > forgetAfter &&
		now-time.Duration(h.failed.Load()) > forgetAfter
}
