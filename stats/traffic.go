package stats

import "sync/atomic"

// Traffic is bytes. Bodies are exact, and so is what flows through a connection whose
// protocol was switched, which counts as bodies. Headers are estimated as if they had
// been sent in HTTP/1.1.
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

// flowing is traffic that is counted while it flows, by any number of requests at once.
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

// take returns what was counted, and begins at zero.
func (f *flowing) take() Traffic {
	return Traffic{take(&f.ingressBody), take(&f.egressBody), take(&f.ingressHeader), take(&f.egressHeader)}
}

func take(n *atomic.Uint64) uint64 {
	if n.Load() == 0 {
		return 0 // which leaves the line to those who write it
	}
	return n.Swap(0)
}

// flow is where the bytes of one request are counted while they flow.
type flow struct {
	stripe  *stripe
	account *account // nil: nobody's in particular
}

func (f flow) add(t Traffic) {
	f.stripe.flow(t)
	if f.account != nil {
		f.account.add(t)
	}
}

// flow counts bytes of a request that may not have ended.
func (st *stripe) flow(t Traffic) {
	st.flowing.add(t)
	// Who retires the series names the heir first, and then takes what is there: either
	// of the two finds these bytes.
	if heir := st.heir.Load(); heir != nil {
		heir.stripes[0].flow(st.flowing.take())
	}
}

// fieldSizes are the sizes of the fields of the last request and the last answer that
// were measured. To look at every field of every request would take longer than all
// other statistics together, and so most are taken to be as large as the one before.
type fieldSizes struct{ request, answer atomic.Uint32 }

// sampled tells whether the fields of the n-th request are measured, n from 1 on: the
// first, and of the others one in sixteen. A multiple of the golden ratio spreads
// these evenly over requests of every rhythm; each sixteenth could be all of one kind.
func sampled(n int64) bool {
	const golden = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio
	return n == 1 || uint64(n)*golden < 1<<60
}
