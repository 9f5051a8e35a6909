package balance

import (
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// tables holds the table of histories while a configuration uses it: histories survive
// a reload.
var tables = caddy.NewUsagePool()

const theTable = "histories"

// table holds the histories of upstreams by their addresses. All methods are safe
// for concurrent use; looking up takes no lock.
type table struct {
	byDial sync.Map // of *history

	mu      sync.Mutex // held to add
	size    int
	sweepAt int
}

// acquireTable returns the process's table, which the caller must release.
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

// of returns the history of an upstream, and creates it if needed. It then removes
// blank histories, which bounds their number by the upstreams seen within forgetAfter.
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

// isBlank reports whether a history has nothing left that matters.
func (h *history) isBlank(now time.Duration) bool {
	return h.waiting.Load() == 0 &&
		now-time.Duration(h.updated.Load()) > forgetAfter &&
		now-time.Duration(h.failed.Load()) > forgetAfter
}
