package upstream

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
)

// hopsField is the request field that detects loops. It contains an entry `id=count`,
// separated by commas, for each gateway process that forwarded the request.
const hopsField = "X-Gateway-Hops"

// maxHopEntries is the maximum number of entries of other processes that are forwarded.
const maxHopEntries = 32

// processID is the prefix of this process's entries.
var processID = newProcessID()

// firstHop is the field value for a request that no gateway has forwarded.
var firstHop = []string{processID + "1"}

func newProcessID() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id) + "="
}

// TakeHops removes hopsField from a request. It returns the number of times that the
// request has passed this process before, and the field's values for the upstream.
func TakeHops(r *http.Request) (before int, next []string) {
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

// isHop reports whether an entry has the format `id=count`.
func isHop(entry string) bool {
	id, count, _ := strings.Cut(entry, "=")
	if len(id) != 16 || len(count) > 5 {
		return false
	}
	_, badID := hex.DecodeString(id)
	_, badCount := strconv.ParseUint(count, 10, 16)
	return badID == nil && badCount == nil
}
