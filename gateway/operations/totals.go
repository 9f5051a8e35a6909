package operations

import (
	"github.com/rgate/rgate/internal/status"
	"github.com/rgate/rgate/policy"
	"github.com/rgate/rgate/stats"
)

// totalsReport holds the totals over all requests of a gateway. Rejected requests are
// counted for the whole process.
type totalsReport struct {
	Requests      uint64                   `json:"total_requests"`
	Successful    uint64                   `json:"successful_requests"`
	Failed        uint64                   `json:"failed_requests"`
	SuccessRate   float64                  `json:"success_rate"`
	RateLimitHits uint64                   `json:"rate_limit_hits"`
	CacheHits     uint64                   `json:"cache_hits"`
	Refused       map[string]uint64        `json:"refused_requests"` // by policy
	Backends      map[string]backendTotals `json:"backends"`
}

type backendTotals struct {
	Requests  uint64  `json:"requests"`
	AverageMS float64 `json:"average_time_ms"`
	ErrorRate float64 `json:"error_rate"`
}

func (rep *Reporter) totals() totalsReport {
	report := rep.Stats.Report(stats.Query{ByBackend: true})
	t := totalsReport{
		Successful: report.Requests.Success, Failed: report.Requests.Error,
		RateLimitHits: policy.RefusalCount("rate_limit"), Refused: policy.RefusalsByPolicy(),
		Backends: make(map[string]backendTotals, len(report.ByBackend)),
	}
	t.Requests, t.SuccessRate = summary(report.Requests)
	for _, hits := range status.CacheHits.All(rep.Gateway) {
		t.CacheHits += hits
	}
	for name, series := range report.ByBackend {
		n, success := summary(series.Requests)
		b := backendTotals{Requests: n, AverageMS: series.Latency.Average}
		if n > 0 {
			b.ErrorRate = 1 - success
		}
		t.Backends[name] = b
	}
	return t
}

// summary returns the number of requests and the ratio of successful requests.
func summary(r stats.Requests) (n uint64, success float64) {
	if n = r.Success + r.Error; n > 0 {
		success = float64(r.Success) / float64(n)
	}
	return n, success
}
