package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/rgate/rgate/policy"
)

// hopsField is the request field by which a gateway recognises a request that it has
// forwarded itself: `id=count`, separated by commas, with an entry for each process on
// the way. Handlers and backends of other gateways see it, clients do not.
const hopsField = "X-Gateway-Hops"

const (
	defaultMaxHops = 5

	// maxHopEntries is how many other processes are passed on.
	maxHopEntries = 32
)

// processID is what the entries of this process begin with.
var processID = newProcessID()

// firstHop is the field of a request that comes from no gateway.
var firstHop = []string{processID + "1"}

func newProcessID() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // it never fails
	return hex.EncodeToString(id) + "="
}

// takeHops removes the field from a request. It returns how often the request has
// passed this process before, and the field to send to a backend.
func takeHops(r *http.Request) (before int, next []string) {
	fields := r.Header[hopsField]
	if len(fields) == 0 {
		return 0, firstHop
	}
	delete(r.Header, hopsField)
	var entries []string
	for entry := range strings.SplitSeq(strings.Join(fields, ","), ",") {
		entry = strings.TrimSpace(entry)
		if count, ok := strings.CutPrefix(entry, processID); ok {
			n, _ := strconv.ParseUint(count, 10, 16)
			before = max(before, int(n))
		} else if isHop(entry) && len(entries) < maxHopEntries {
			entries = append(entries, entry)
		}
	}
	entries = append(entries, processID+strconv.Itoa(before+1))
	return before, []string{strings.Join(entries, ", ")}
}

// isHop reports whether an entry is one that a gateway makes.
func isHop(entry string) bool {
	id, count, _ := strings.Cut(entry, "=")
	if len(id) != 16 || len(count) > 5 {
		return false
	}
	_, badID := hex.DecodeString(id)
	_, badCount := strconv.ParseUint(count, 10, 16)
	return badID == nil && badCount == nil
}

// maxHops is how often a request may pass the gateway; 0: any number of times.
func (g *Gateway) maxHops() int {
	if g.MaxHops == nil {
		return defaultMaxHops
	}
	return *g.MaxHops
}

// checkHops reports whether the option max_hops is out of range.
func (g *Gateway) checkHops() error {
	if n := g.maxHops(); n < 0 || n > 1000 {
		return problemf("max_hops", "max_hops %d is out of range: use 1 to 1000, or 0 to disable it", n)
	}
	return nil
}

// refuseLoop responds to a request that has passed the gateway too often.
func (g *Gateway) refuseLoop(w http.ResponseWriter, r *http.Request) error {
	g.logger.Warn("request refused: the gateway is its own backend", zap.Int("max_hops", g.maxHops()), zap.String("path", r.URL.Path))
	policy.WriteStatus(w, r, http.StatusLoopDetected)
	return nil
}
