package stats

import "sync/atomic"

// Traffic is a number of bytes. Bodies are exact; so are bytes of a connection whose
// protocol was switched, which count as bodies. Headers are estimated as if sent in
// HTTP/1.1.
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

// flowing counts traffic while it is transferred. It is safe for concurrent use.
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
		return 0 // does not dirty the cache line
	}
	return n.Swap(0)
}

// flow counts the bytes of one request while they are transferred.
type flow struct {
	shard   *shard
	account *account // nil: not attributed to a consumer
}

func (f flow) add(t Traffic) {
	f.shard.flow(t)
	if f.account != nil {
		f.account.add(t)
	}
}

// flow counts bytes of a request that may not have ended.
func (st *shard) flow(t Traffic) {
	st.flowing.add(t)
	// retire sets the successor first, and then takes the counts: either retire or this
	// finds the bytes.
	if successor := st.successor.Load(); successor != nil {
		successor.shards[0].flow(st.flowing.take())
	}
}

// fieldSizes are the sizes of the fields of the last request and the last response that
// were measured. Measuring all of them would cost more than all other statistics
// together; the others are assumed to be as large as the last.
type fieldSizes struct{ request, response atomic.Uint32 }

// sampled reports whether the fields of the n-th request are measured, n from 1: the
// first, and one in sixteen of the others. Multiples of the golden ratio select evenly
// whatever the pattern of requests; every 16th request could be of one kind.
func sampled(n int64) bool {
	const golden = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio
	return n == 1 || uint64(n)*golden < 1<<60
}
