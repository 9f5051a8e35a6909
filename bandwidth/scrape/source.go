package scrape

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/options"
)

// Source is another gateway whose bandwidth metrics are scraped: Kong, Traefik or rgate.
type Source struct {
	// The unique name of the source. It is the gateway name of the source's rows. A
	// renamed source starts as a new source. Required.
	Name string `json:"name" caddyfile:"arg"`

	// The URL of the metrics in the Prometheus text format: `http://` or `https://`.
	// Required.
	URL string `json:"url" caddyfile:"arg"`

	// The interval between scrapes. Minimum: 1s. Default: 5s.
	Interval caddy.Duration `json:"interval,omitempty"`

	// The timeout of a scrape. Default: the interval, at most 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Header fields of scrape requests, such as `Authorization`. Placeholders such as
	// `{env.TOKEN}` and `{file./run/secrets/token}` are replaced. Default: none.
	Headers map[string]string `json:"headers,omitempty"`

	// The credentials for HTTP basic authentication. Default: none.
	BasicAuth *SourceAuth `json:"basic_auth,omitempty"`

	// The maximum number of bandwidth series. A source with more is down. Default: 10000.
	MaxSeries int `json:"max_series,omitempty"`
}

// SourceAuth holds credentials for HTTP basic authentication.
type SourceAuth struct {
	Username string `json:"username" caddyfile:"arg"`

	// The password. Placeholders such as `{env.PASSWORD}` are replaced. Default: empty.
	Password string `json:"password,omitempty" caddyfile:"arg"`
}

const (
	defaultSourceInterval = 5 * time.Second
	maxSourceTimeout      = 10 * time.Second
	defaultMaxSeries      = 10_000
	maxSourceName         = 200

	// maxScrape is the maximum size of a metrics response in bytes.
	maxScrape = 32 << 20
)

// Check returns an error for the first invalid option of the sources, or nil.
func Check(sources []*Source) *options.Error {
	names := make(map[string]int, len(sources))
	for i, s := range sources {
		at := fmt.Sprintf("sources[%d]", i)
		if s == nil {
			return options.Errorf(at, "the source is null: set name and url, or remove it")
		}
		if err := s.check(at); err != nil {
			return err
		}
		if first, ok := names[s.Name]; ok {
			return options.Errorf(at+".name", "duplicate name %q: must differ from the name of sources[%d]", s.Name, first)
		}
		names[s.Name] = i
	}
	return nil
}

func (s *Source) check(at string) *options.Error {
	switch {
	case s.Name == "":
		return options.Errorf(at+".name", "name is required: set the name of the source in reports")
	case len(s.Name) > maxSourceName:
		return options.Errorf(at+".name", "invalid name with %d bytes: must have at most %d bytes", len(s.Name), maxSourceName)
	case s.URL == "":
		return options.Errorf(at+".url", "url is required: set the URL of the metrics, such as http://kong:8001/metrics")
	case s.Interval != 0 && time.Duration(s.Interval) < time.Second:
		return options.Errorf(at+".interval", "invalid interval %s: must be at least 1s", time.Duration(s.Interval))
	case s.Timeout < 0:
		return options.Errorf(at+".timeout", "invalid timeout %s: must be positive, such as 5s", time.Duration(s.Timeout))
	case s.MaxSeries < 0:
		return options.Errorf(at+".max_series", "invalid max_series %d: must be positive", s.MaxSeries)
	case s.BasicAuth != nil && s.BasicAuth.Username == "":
		return options.Errorf(at+".basic_auth.username", "username is required: set username and password")
	}
	if !strings.Contains(s.URL, "{") { // placeholders are validated when replaced
		if _, err := parseSourceURL(s.URL); err != nil {
			return options.Errorf(at+".url", "%v", err)
		}
	}
	for name := range s.Headers {
		if !isToken(name) {
			return options.Errorf(at+".headers", "invalid header field name %q: use letters, digits and dashes", name)
		}
	}
	return nil
}

func parseSourceURL(text string) (*url.URL, error) {
	address, err := url.Parse(text)
	switch {
	case err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https":
		return nil, fmt.Errorf("invalid url %q: must be a URL such as http://kong:8001/metrics", text)
	case address.User != nil:
		return nil, fmt.Errorf("invalid url: must not contain credentials: use basic_auth")
	}
	return address, nil
}

// isToken reports whether text is a valid header field name (RFC 9110, section 5.6.2).
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", c)
	})
}

// request returns the scrape request.
func (s *Source) request() (*http.Request, error) {
	repl := caddy.NewReplacer()
	address, err := parseSourceURL(repl.ReplaceKnown(s.URL, ""))
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1")
	request.Header.Set("User-Agent", "rgate")
	for name, value := range s.Headers {
		if strings.EqualFold(name, "Host") {
			request.Host = repl.ReplaceKnown(value, "")
			continue
		}
		request.Header.Set(name, repl.ReplaceKnown(value, ""))
	}
	if s.BasicAuth != nil {
		username, err := options.ReplaceTrimmed("basic_auth.username", s.BasicAuth.Username)
		if err != nil {
			return nil, err
		}
		password, err := options.ReplaceTrimmed("basic_auth.password", s.BasicAuth.Password)
		if err != nil {
			return nil, err
		}
		request.SetBasicAuth(username, password)
	}
	return request, nil
}

// fillDefaults sets the defaults of unset options.
func (s *Source) fillDefaults() {
	if s.Interval == 0 {
		s.Interval = caddy.Duration(defaultSourceInterval)
	}
	if s.Timeout == 0 {
		s.Timeout = min(s.Interval, caddy.Duration(maxSourceTimeout))
	}
	if s.MaxSeries == 0 {
		s.MaxSeries = defaultMaxSeries
	}
}
