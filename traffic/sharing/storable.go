package sharing

import (
	"net/http"
	"strings"

	"github.com/rgate/rgate/traffic/httpcache"
)

// ForAll reports whether a response may be sent to other clients whose requests are
// equal.
func ForAll(q *httpcache.Request, header http.Header, d *httpcache.Directives) bool {
	return !d.NoStore && !d.Private && len(header["Set-Cookie"]) == 0 && len(header["Set-Cookie2"]) == 0 &&
		!q.VariesUnseen(header["Vary"])
}

// IsEndless reports whether the response is a stream without an end, such as server-sent
// events.
func IsEndless(header http.Header) bool {
	for _, value := range header["Content-Type"] {
		kind, _, _ := strings.Cut(value, ";")
		kind = strings.TrimSpace(kind)
		if strings.EqualFold(kind, "text/event-stream") || strings.EqualFold(kind, "multipart/x-mixed-replace") {
			return true
		}
	}
	return false
}
