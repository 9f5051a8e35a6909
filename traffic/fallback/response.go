package fallback

import (
	"encoding/json"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/policy"
)

func (s *FallbackResponse) check() error {
	switch status := s.StatusCode; {
	case status != 0 && (status < 200 || status > 599):
		return policy.Optionf("response.status_code", "%d is not a status that a response can end with: use 200 to 599", status)
	case (status == http.StatusNoContent || status == http.StatusNotModified) && s.Body != "":
		return policy.Optionf("response.body", "an answer with status %d has no body: use another status, or leave the body out", status)
	}
	for name, value := range s.Headers {
		at := "response.headers." + name
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return policy.Optionf(at, "%q is no name of a header field: use one like Retry-After", name)
		case strings.ContainsAny(value, "\r\n\x00"):
			return policy.Optionf(at, "the value of %s is more than one line: use one line", name)
		}
		switch http.CanonicalHeaderKey(name) {
		case "Content-Length", "Transfer-Encoding", "Connection", "Trailer":
			return policy.Optionf(at, "%s belongs to the connection: leave it out", name)
		}
	}
	return nil
}

func (s *FallbackResponse) write(w http.ResponseWriter, r *http.Request) {
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
