package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// header returns the header fields of a deprecated response, or the first invalid
// option with its path relative to the deprecation.
func (d *Deprecation) header() (http.Header, *Problem) {
	header := make(http.Header)
	since := time.Unix(0, 0)
	var err error
	if d.Since != "" {
		if since, err = parseDay(d.Since); err != nil {
			return nil, problemf("since", "%v", err)
		}
	}
	header.Set("Deprecation", "@"+strconv.FormatInt(since.Unix(), 10))
	if d.Sunset != "" {
		sunset, err := parseDay(d.Sunset)
		if err != nil {
			return nil, problemf("sunset", "%v", err)
		}
		if d.Since != "" && sunset.Before(since) {
			return nil, problemf("sunset", "invalid sunset %s: must not be before since, %s", d.Sunset, d.Since)
		}
		header.Set("Sunset", sunset.UTC().Format(http.TimeFormat))
	}
	if d.Link != "" {
		if _, err := url.ParseRequestURI(d.Link); err != nil || strings.ContainsAny(d.Link, "<>\" \t\r\n") {
			return nil, problemf("link", "invalid link %q: must be a URL such as https://example.com/changes", d.Link)
		}
		header.Set("Link", "<"+d.Link+`>; rel="deprecation"; type="text/html"`)
	}
	return header, nil
}

func parseDay(text string) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if day, err := time.Parse(layout, text); err == nil {
			return day, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid date %q: must be a date such as 2026-12-31, or a time such as 2026-12-31T12:00:00Z", text)
}

// deprecation is a middleware that adds header fields to every response of the next
// handler, including errors.
func deprecation(fields http.Header, next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		for name, values := range fields {
			w.Header()[name] = append(w.Header()[name], values...)
		}
		return next.ServeHTTP(&deprecationWriter{caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, fields}, r)
	}
}

// deprecationWriter replaces the backend's values of Deprecation and Sunset.
type deprecationWriter struct {
	caddyhttp.ResponseWriterWrapper
	fields http.Header
}

func (a *deprecationWriter) WriteHeader(status int) {
	for _, name := range []string{"Deprecation", "Sunset"} {
		if value := a.fields.Get(name); value != "" {
			a.Header().Set(name, value)
		}
	}
	a.ResponseWriter.WriteHeader(status)
}
