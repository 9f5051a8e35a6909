package bandwidth

import "context"

// prune deletes rows that are not kept any more.
func (l *Ledger) prune(ctx context.Context) {}
