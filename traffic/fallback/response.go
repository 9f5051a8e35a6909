package fallback

import (
	"encoding/json"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

func (s *Response) check() error {
	switch status := s.StatusCode; {
	case status != 0 && (status < 200 || status > 599):
		return options.Errorf("response.status_code", "invalid status_code %d: must be 200 to 599", status)
	case (status == http.StatusNoContent || status == http.StatusNotModified) && s.Body != "":
		return options.Errorf("response.body", "a response with status %d has no body: use another status, or remove body", status)
	}
	for name, value := range s.Headers {
		at := "response.headers." + name
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return options.Errorf(at, "invalid header field name %q: must be a name such as Retry-After", name)
		case strings.ContainsAny(value, "\r\n\x00"):
			return options.Errorf(at, "invalid value of %s: must be one line without zero bytes", name)
		}
		switch http.CanonicalHeaderKey(name) {
		case "Content-Length", "Transfer-Encoding", "Connection", "Trailer":
			return options.Errorf(at, "%s is set by the gateway: remove it", name)
		}
	}
	return nil
}

func (s *Response) write(w http.ResponseWriter, r *http.Request) {
	header, contentType := w.Header(), "text/plain; charset=utf-8"
	if json.Valid([]byte(s.Body)) {
		contentType = "application/json"
	}
	for name, value := range s.Headers {
		header.Set(name, value)
		if http.CanonicalHeaderKey(name) == "Content-Type" {
			contentType = value
		}
	}
	if s.StatusCode == http.StatusServiceUnavailable && header.Get("Retry-After") == "" {
		header.Set("Retry-After", "1")
	}
	if s.StatusCode == http.StatusNoContent || s.StatusCode == http.StatusNotModified {
		w.WriteHeader(s.StatusCode)
		return
	}
	policy.WriteBody(w, r, s.StatusCode, contentType, []byte(s.Body))
}
