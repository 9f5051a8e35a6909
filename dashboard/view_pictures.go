package dashboard

import "strings"

// perSecond converts a row of counts to rates. It omits the last window until enough of
// it has elapsed.
func (s span) perSecond(row []float64) []float64 {
	rate := make([]float64, len(row))
	for i, v := range row {
		rate[i] = null
		if s.judged(i) {
			rate[i] = v / s.seconds(i)
		}
	}
	return rate
}

// requestPictures returns the pictures of requests, errors and durations.
func requestPictures(f figures) []picture {
	s := f.span
	rate := s.perSecond(f.requests)
	failed := s.nulls()
	for i := range failed {
		failed[i] = ratio(f.errors[i], f.requests[i])
	}
	requests := draw("requests", "Requests per second", s, rates, []series{{name: "Requests per second", class: "c1", values: rate}}, false)
	requests.Total = rates.text(ratio(float64(f.total.requests), s.now.Sub(s.from).Seconds())) + " on average"
	requests.Alt = "Line: requests per second, " + describe(s, rates, rate)
	errors := draw("errors", "Share of errors", s, shares, []series{{name: "Share of errors", class: "cbad", values: failed}}, false)
	errors.Total = shares.text(f.total.errorShare()) + " of all"
	errors.Alt = "Line: share of responses with status 400 and above, " + describe(s, shares, failed)
	latency := draw("latency", "Response time", f.timing, durations, []series{
		{name: "99 %", class: "c4", values: f.p99, value: durations.text(f.overall.p99)},
		{name: "95 %", class: "c2", values: f.p95, value: durations.text(f.overall.p95)},
		{name: "50 %", class: "c1", values: f.p50, value: durations.text(f.overall.p50)},
	}, false)
	latency.Total = durations.text(f.total.average()) + " on average; logarithmic"
	latency.Alt = "Three lines on a logarithmic axis: response times. Half of them: " + describe(f.timing, durations, f.p50) +
		". 95 %: " + describe(f.timing, durations, f.p95) + ". 99 %: " + describe(f.timing, durations, f.p99)
	return []picture{requests, latency, errors}
}

// trafficPictures returns the pictures of bytes sent to and received from clients.
func trafficPictures(f figures, params pageParams) (pictures []picture) {
	s := f.span
	of := "service"
	if params.service != "" {
		of = "route"
	}
	for _, one := range []struct {
		id, title, verb string
		layers          []series
		total           int64
	}{
		{"egress", "Sent to clients, by " + of, "sent", f.egress, f.total.bytes.Egress},
		{"ingress", "Received from clients, by " + of, "received", f.ingress, f.total.bytes.Ingress},
	} {
		rows := make([]series, len(one.layers))
		sum := s.nulls()
		for i, l := range one.layers {
			total := 0.0
			for at, v := range l.values {
				if !isNull(v) {
					total += v
					sum[at] = max(sum[at], 0) + v
				}
			}
			rows[i] = series{name: l.name, class: l.class, values: s.perSecond(l.values), value: byteCounts.text(total)}
		}
		p := draw(one.id, one.title, s, byteRates, rows, true)
		p.Total = byteCounts.text(float64(one.total))
		p.Alt = "Stacked bars: bytes of bodies " + one.verb + " per second, " + describe(s, byteRates, s.perSecond(sum)) + shareOut(rows)
		pictures = append(pictures, p)
	}
	return pictures
}

// shareOut returns a text with the total of each layer of a stacked picture.
func shareOut(rows []series) string {
	var said []string
	for _, one := range rows {
		said = append(said, one.name+" "+one.value)
	}
	if len(said) == 0 {
		return ""
	}
	return ". In all: " + strings.Join(said, ", ")
}
