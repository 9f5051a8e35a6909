package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// fields returns the header fields that the deprecation is told by.
func (d *Deprecation) fields() (http.Header, error) {
	fields := make(http.Header)
	since := time.Unix(0, 0)
	var err error
	if d.Since != "" {
		if since, err = parseDay(d.Since); err != nil {
			return nil, fmt.Errorf("since %w", err)
		}
	}
	fields.Set("Deprecation", "@"+strconv.FormatInt(since.Unix(), 10))
	if d.Sunset != "" {
		sunset, err := parseDay(d.Sunset)
		if err != nil {
			return nil, fmt.Errorf("sunset %w", err)
		}
		if sunset.Before(since) {
			return nil, fmt.Errorf("sunset %s is before since, %s: nothing goes away before it is deprecated", d.Sunset, d.Since)
		}
		fields.Set("Sunset", sunset.UTC().Format(http.TimeFormat))
	}
	if d.Link != "" {
		if strings.ContainsAny(d.Link, "<>\" \t\r\n") {
			return nil, fmt.Errorf("link %q is not an address: give a URL", d.Link)
		}
		fields.Set("Link", "<"+d.Link+`>; rel="deprecation"; type="text/html"`)
	}
	return fields, nil
}

func parseDay(text string) (time.Time, error) {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if day, err := time.Parse(layout, text); err == nil {
			return day, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a day: write it as in 2026-12-31 or 2026-12-31T12:00:00Z", text)
}

// announcing is a middleware that adds header fields to every answer.
func announcing(fields http.Header, next caddyhttp.Handler) caddyhttp.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		for name, values := range fields {
			w.Header()[name] = append(w.Header()[name], values...)
		}
		return next.ServeHTTP(w, r)
	}
}
