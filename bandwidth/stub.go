package bandwidth

import (
	"context"
	"time"
)

type Ledger struct{}

func LedgerOf(gateway string) *Ledger { return nil }

func (l *Ledger) Usage(ctx context.Context, q Query) ([]Point, error)           { return nil, nil }
func (l *Ledger) Requests(ctx context.Context, q Query) ([]RequestPoint, error) { return nil, nil }
func (l *Ledger) Names(ctx context.Context, since time.Time) (services, routes, consumers, gateways []string, err error) {
	return
}
