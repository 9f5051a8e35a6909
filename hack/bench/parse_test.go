package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const line = "42 (a ) name) S 1 40 40 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 9 0 12345 999999 300 18446744073709551615 1 1"
	group, used, err := parseStat(line)
	if err != nil {
		t.Fatal(err)
	}
	want := usage{cpu: 3 * time.Second, memory: 300 * int64(os.Getpagesize())}
	if group != 40 || used != want {
		t.Errorf("got group %d and %+v, want 40 and %+v", group, used, want)
	}
	for _, broken := range []string{"", "42 (name) S 1 40", strings.Replace(line, "250", "x", 1)} {
		if _, _, err := parseStat(broken); err == nil {
			t.Errorf("%q: got no error", broken)
		}
	}
}

const wrkOutput = `Running 5s test @ http://127.0.0.1:8080/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.10ms    1.05ms  20.01ms   80.00%
    Req/Sec    15.10k     1.00k   17.00k    70.00%
  Latency Distribution
     50%    1.90ms
     75%    2.50ms
     90%    3.30ms
     99%  950.00us
  150230 requests in 5.01s, 20.10MB read
Requests/sec:  29986.03
Transfer/sec:      4.01MB
`

func TestParseWrk(t *testing.T) {
	got, err := parseWrk(wrkOutput)
	want := sample{requests: 150230, perSecond: 29986.03, p99: 950 * time.Microsecond}
	if err != nil || got != want {
		t.Errorf("got %+v and %v, want %+v", got, err, want)
	}
	for _, trouble := range []string{
		"",
		wrkOutput + "  Non-2xx or 3xx responses: 3\n",
		wrkOutput + "  Socket errors: connect 0, read 1, write 0, timeout 0\n",
		strings.Replace(wrkOutput, "150230", "0", 1),
	} {
		if _, err := parseWrk(trouble); err == nil {
			t.Errorf("%.40q: got no error", trouble)
		}
	}
}

func TestParseBenchmarks(t *testing.T) {
	got := parseBenchmarks("gateway", `goos: linux
BenchmarkLookup/routes-100-2    5000000   231.5 ns/op   12.0 hits/op   0 B/op   0 allocs/op
BenchmarkBroken
PASS
`)
	if len(got) != 1 {
		t.Fatalf("got %d benchmarks, want 1: %v", len(got), got)
	}
	if got[0].name != "Lookup/routes-100" || got[0].values["ns/op"] != "231.5" || got[0].values["hits/op"] != "12.0" {
		t.Errorf("got %+v", got[0])
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{2: {3, 1, 2}, 2.5: {4, 1, 3, 2}, 7: {7}} {
		if got := median(values); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
