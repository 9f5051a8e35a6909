package upstream

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
)

// HopsField is the request field by which a gateway recognises a request that it has
// forwarded itself: `id=count`, separated by commas, with an entry for each process on
// the way. Handlers and backends of other gateways see it, clients do not.
const HopsField = "X-Gateway-Hops"

// maxHopEntries is the maximum number of entries of other processes that are forwarded.
const maxHopEntries = 32

// processID is what the entries of this process begin with.
var processID = newProcessID()

// firstHop is the field of a request that comes from no gateway.
var firstHop = []string{processID + "1"}

func newProcessID() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // it never fails
	return hex.EncodeToString(id) + "="
}

// TakeHops removes the field from a request. It returns how often the request has
// passed this process before, and the field to send to a backend.
func TakeHops(r *http.Request) (before int, next []string) {
	fields := r.Header[HopsField]
	if len(fields) == 0 {
		return 0, firstHop
	}
	delete(r.Header, HopsField)
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
