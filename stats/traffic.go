package stats

import "sync/atomic"

// Traffic holds numbers of bytes. Body sizes are exact, and include the bytes after a
// protocol switch. Header sizes are estimated for HTTP/1.1.
type Traffic struct {
	IngressBody   uint64 `json:"ingress"` // from clients
	EgressBody    uint64 `json:"egress"`  // to clients
	IngressHeader uint64 `json:"ingress_headers"`
	EgressHeader  uint64 `json:"egress_headers"`
}

func (t *Traffic) add(o Traffic) {
	t.IngressBody += o.IngressBody
	t.EgressBody += o.EgressBody
	t.IngressHeader += o.IngressHeader
	t.EgressHeader += o.EgressHeader
}

// flowing counts bytes during the transfer. It is safe for concurrent use.
type flowing struct {
	ingressBody, egressBody, ingressHeader, egressHeader atomic.Uint64
}

func (f *flowing) add(t Traffic) {
	if t.IngressBody > 0 {
		f.ingressBody.Add(t.IngressBody)
	}
	if t.EgressBody > 0 {
		f.egressBody.Add(t.EgressBody)
	}
	if t.IngressHeader > 0 {
		f.ingressHeader.Add(t.IngressHeader)
	}
	if t.EgressHeader > 0 {
		f.egressHeader.Add(t.EgressHeader)
	}
}

// take returns the counts and resets them.
func (f *flowing) take() Traffic {
	return Traffic{take(&f.ingressBody), take(&f.egressBody), take(&f.ingressHeader), take(&f.egressHeader)}
}

func take(n *atomic.Uint64) uint64 {
	if n.Load() == 0 {
		return 0 // avoids dirtying the cache line
	}
	return n.Swap(0)
}

// flow counts the bytes of one request during the transfer.
type flow struct {
	shard   *shard
	account *account // nil if not attributed to a consumer
}

func (f flow) add(t Traffic) {
	f.shard.flow(t)
	if f.account != nil {
		f.account.add(t)
	}
}

// flow counts bytes of a request in flight.
func (st *shard) flow(t Traffic) {
	st.flowing.add(t)
	// retire sets the successor before it takes the counts. Therefore, either retire or
	// this code finds the bytes.
	if successor := st.successor.Load(); successor != nil {
		successor.shards[0].flow(st.flowing.take())
	}
}

// fieldSizes holds the sizes of the header fields of the last measured request and
// response. Measuring every message would cost more than all other statistics. Other
// messages are assumed to have the same size.
type fieldSizes struct{ request, response atomic.Uint32 }

// sampled reports whether the header fields of the n-th request are measured, starting
// from 1. It selects the first request, and one in sixteen of the others. Multiples of
// the golden ratio avoid a bias for periodic requests.
func sampled(n int64) bool {
	const golden = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	return n == 1 || uint64(n)*golden < 1<<60
}
