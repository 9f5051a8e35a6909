package coalesce

import (
	"net/http"

	"github.com/rgate/rgate/traffic/httpcache"
	"github.com/rgate/rgate/traffic/sharing"
)

// shareable reports whether a response may be sent to several waiting clients: if a
// shared cache may store it, regardless of its lifetime, or if it is a server error.
// Repeating a failed request would increase the load of the backend.
func shareable(q *httpcache.Request, status int, header http.Header) bool {
	d := httpcache.ParseDirectives(header["Cache-Control"])
	if d.NoCache || !sharing.ForAll(q, header, &d) || sharing.IsEndless(header) || len(header["Trailer"]) > 0 {
		return false
	}
	switch status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo, http.StatusNoContent, http.StatusPartialContent,
		http.StatusMultipleChoices, http.StatusMovedPermanently, http.StatusPermanentRedirect, http.StatusNotModified,
		http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone, http.StatusRequestURITooLong:
		return true
	case http.StatusUnauthorized, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false // specific to a client or its connection
	}
	return status >= 500 || status >= 200 && (d.Public || d.MaxAge.Given() || d.SMaxAge.Given() || len(header["Expires"]) > 0)
}
