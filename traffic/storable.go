package traffic

import (
	"net/http"
	"strings"

	"github.com/rgate/rgate/traffic/httpcache"
)

// forEveryone reports whether an answer to a request may be given to others than the one
// who asked for it, if their requests do not differ.
func forEveryone(q *httpcache.Request, header http.Header, d *httpcache.Directives) bool {
	return !d.NoStore && !d.Private && len(header["Set-Cookie"]) == 0 && len(header["Set-Cookie2"]) == 0 &&
		!q.VariesUnseen(header["Vary"])
}

// endless reports whether the body of an answer is a stream of events, which ends
// when somebody leaves.
func endless(header http.Header) bool {
	for _, value := range header["Content-Type"] {
		kind, _, _ := strings.Cut(value, ";")
		kind = strings.TrimSpace(kind)
		if strings.EqualFold(kind, "text/event-stream") || strings.EqualFold(kind, "multipart/x-mixed-replace") {
			return true
		}
	}
	return false
}

// shareable reports whether an answer to a request may go to several clients who asked for
// it at the same time. Beside what may be stored without a word about how long, these are
// the errors of a server: to ask it again and again would not help it.
func shareable(q *httpcache.Request, status int, header http.Header) bool {
	d := httpcache.ParseDirectives(header["Cache-Control"])
	if d.NoCache || !forEveryone(q, header, &d) || endless(header) || len(header["Trailer"]) > 0 {
		return false
	}
	switch status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusNoContent, http.StatusPartialContent,
		http.StatusMultipleChoices, http.StatusMovedPermanently, http.StatusPermanentRedirect, http.StatusNotModified,
		http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusRequestURITooLong:
		return true
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false // about one client, or its connection
	}
	return status >= 500 || status >= 200 && (d.Public || d.MaxAge.Given() || d.SMaxAge.Given() || len(header["Expires"]) > 0)
}

// field is a header field.
type field struct {
	name   string
	values []string
}
