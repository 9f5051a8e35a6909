package integration

import (
	"database/sql"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// converse sends messages through a tunnel and reads each one back twice.
func (c *meterCount) converse(t testing.TB, g *gateway, messages int) {
	conn := c.open(t, g)
	defer conn.Close()
	for range messages {
		message := make([]byte, 1+rand.IntN(20_000))
		_, err := conn.Write(message)
		must(t, "sending a message", err)
		_, err = io.CopyN(io.Discard, conn.reader, int64(2*len(message)))
		must(t, "reading two", err)
		c.out.Add(int64(len(message)))
		c.in.Add(int64(2 * len(message)))
	}
}

// abort sends part of an upload and closes the connection (FIN, or RST if reset is set).
// Only the gateway knows how many bytes it has read.
func (b *meterBackend) abort(t testing.TB, g *gateway, reset bool) {
	part := 70_000 + rand.IntN(200_000)
	conn := g.uploading(t, "/cut/upload?n=1", part, "Content-Length: 1000000\r\n\r\n")
	b.aborted.out.Add(int64(part))
	select {
	case <-b.begun:
	case <-time.After(patience):
		t.Error("nothing of an upload arrived")
	}
	if reset {
		must(t, "leaving by RST", conn.(*net.TCPConn).SetLinger(0))
	}
	must(t, "leaving", conn.Close())
}

// TestBandwidthIsWhatBothSidesCount compares the counts of client, backend and gateway
// for 10,000 requests over HTTP/1.1 and HTTP/2, for tunnels and for aborted uploads.
func TestBandwidthIsWhatBothSidesCount(t *testing.T) {
	b := startMeterBackend(t)
	g := meterGateway(t, b)
	var client meterCount
	h2 := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)

	var workers sync.WaitGroup
	for worker := range 8 {
		workers.Go(func() {
			with := g.client
			if worker%2 == 1 {
				with = &http.Client{Transport: h2}
			}
			for range 10_000 / 8 {
				client.mixed(t, g, with)
			}
		})
	}
	for range 20 {
		client.cut(t, g, b)
		client.converse(t, g, 10)
		b.abort(t, g, false)
		b.abort(t, g, true)
	}
	workers.Wait()
	g.agree(t, &client, &b.meterCount)

	refused := g.get(t, "/elsewhere")
	testkit.Eventually(t, "the default response is counted", func() bool {
		_, egress := g.bodies(t, "_none")
		return egress == int64(len(refused.body))
	})
	testkit.Eventually(t, "everything has ended", func() bool { return g.metric(t, "rgate_requests_in_flight") == 0 })
	ingress, egress := g.bodies(t, "cut")
	if least, most := b.aborted.in.Load(), b.aborted.out.Load(); ingress < least || ingress > most || least == 0 {
		t.Errorf("of aborted uploads, %d are in; the backend has %d, and the clients sent %d", ingress, least, most)
	}
	want := map[string][2]int64{"web": {client.out.Load(), client.in.Load()}, "cut": {ingress, egress}, "_none": {0, int64(len(refused.body))}}
	meterViewsAgree(t, g, want)
	t.Logf("%d in, %d out, and about %g and %g of headers", client.out.Load(), client.in.Load(),
		g.metric(t, "rgate_bandwidth_header_bytes_total", "direction", "ingress"), g.metric(t, "rgate_bandwidth_header_bytes_total", "direction", "egress"))
}

// meterViewsAgree checks that the statistics page and the usage store report the given
// ingress and egress for each backend.
func meterViewsAgree(t *testing.T, g *gateway, want map[string][2]int64) {
	t.Helper()
	page := g.stats(t, "?by=bandwidth&by=route&by=backend&window=1h")
	of := func(one figures) [2]int64 {
		return [2]int64{int64(one.Bandwidth.IngressBody), int64(one.Bandwidth.EgressBody)}
	}
	var all [2]int64
	for backend, route := range map[string]string{"web": "/web", "cut": "/cut", "_none": "_default"} {
		if got := of(page.ByBackend[backend]); got != want[backend] {
			t.Errorf("the page has %d of backend %s, want %d", got, backend, want[backend])
		}
		if got := of(page.ByRoute[route]); got != want[backend] {
			t.Errorf("the page has %d of route %s, want %d", got, route, want[backend])
		}
		all[0], all[1] = all[0]+want[backend][0], all[1]+want[backend][1]
	}
	if got := [2]int64{int64(page.Bandwidth.IngressBody), int64(page.Bandwidth.EgressBody)}; got != all {
		t.Errorf("the page has %d of all, want %d", got, all)
	}
	if page.ByBackend["_none"].Bandwidth.EgressHeader == 0 {
		t.Error("the page has no header of what went nowhere")
	}
	if plain := g.get(t, "/stats").body; strings.Contains(plain, "bandwidth") {
		t.Errorf("the page says %s without having been asked for bytes", plain)
	}
	var written map[string][2]int64
	defer func() {
		if t.Failed() {
			t.Logf("the account has %v, want %v", written, want)
		}
	}()
	testkit.Eventually(t, "the account has what the metrics have", func() bool {
		written = serviceAccounts(filepath.Join(filepath.Dir(g.file), "bandwidth.db"))
		return maps.Equal(written, want)
	})
}

// serviceAccounts returns the ingress and egress of each service in an SQLite store.
func serviceAccounts(file string) map[string][2]int64 {
	all := make(map[string][2]int64)
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		return all
	}
	defer db.Close()
	rows, err := db.Query("SELECT service, SUM(ingress), SUM(egress) FROM bandwidth_minute GROUP BY service")
	if err != nil { // the table may not exist yet
		return all
	}
	defer rows.Close()
	for rows.Next() {
		var service string
		var sums [2]int64
		if rows.Scan(&service, &sums[0], &sums[1]) == nil {
			all[service] = sums
		}
	}
	return all
}
