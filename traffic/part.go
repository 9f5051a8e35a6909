package traffic

import (
	"bytes"
	"net/http"
	"strings"
	"time"
)

// wantsPart reports whether a request asks for a part of what it asks for. Parts that are
// not counted in bytes are none.
func wantsPart(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasPrefix(r.Header.Get("Range"), "bytes=")
}

// serveRange answers a request for a part of a body that is there as a whole (RFC 9110,
// section 14), given what its header says. judged tells that what the client has already
// was looked at, and found to be another answer.
func serveRange(w http.ResponseWriter, r *http.Request, judged bool, modified time.Time, body []byte) {
	if header := w.Header(); header["Content-Type"] == nil {
		header["Content-Type"] = nil // there is none to be guessed
	}
	if judged {
		r = r.WithContext(r.Context())
		r.Header = r.Header.Clone()
		r.Header.Del("If-None-Match")
		r.Header.Del("If-Modified-Since")
	}
	http.ServeContent(w, r, "", modified, bytes.NewReader(body))
}
