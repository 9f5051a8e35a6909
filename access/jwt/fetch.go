package jwt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

const (
	// The freshness lifetime of keys whose response does not specify one, and the bounds
	// of the lifetime.
	defaultFresh = 5 * time.Minute
	minFresh     = time.Minute
	maxFresh     = 24 * time.Hour

	// The interval between reads of a key file.
	fileFresh = 5 * time.Second

	maxDocument  = 1 << 20 // in bytes
	maxRedirects = 5
)

// keySources holds the key sources in use by name. Routes share them, and they survive
// reloads.
var keySources = caddy.NewUsagePool()

// fetcher fetches documents over HTTP.
type fetcher struct{ client *http.Client }

// newFetcher returns a fetcher without keep-alive, because documents are fetched rarely.
// It verifies servers with the certificates in caFile, or with the system's certificates
// if caFile is empty.
func newFetcher(caFile string) (fetcher, error) {
	var authorities *x509.CertPool
	if caFile != "" {
		read, err := readFile(caFile)
		if err != nil {
			return fetcher{}, err
		}
		authorities = x509.NewCertPool()
		if !authorities.AppendCertsFromPEM(read.text) {
			return fetcher{}, fmt.Errorf("%s contains no certificate in PEM format", caFile)
		}
	}
	return fetcher{&http.Client{
		Transport: &http.Transport{
			TLSClientConfig:        &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12},
			Proxy:                  http.ProxyFromEnvironment,
			DisableKeepAlives:      true,
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return errors.New("redirect from https to " + r.URL.Scheme)
			}
			return nil
		},
	}}, nil
}

// get fetches a document.
func (f fetcher) get(ctx context.Context, url string) (none document, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return none, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	request.Header.Set("User-Agent", "rgate")
	response, err := f.client.Do(request)
	if err != nil {
		return none, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return none, fmt.Errorf("getting %s: unexpected status %d", url, response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	if err != nil {
		return none, fmt.Errorf("getting %s: %w", url, err)
	}
	if len(text) > maxDocument {
		return none, fmt.Errorf("getting %s: the response is larger than %d bytes", url, maxDocument)
	}
	return document{text, freshFor(response.Header)}, nil
}

// discover fetches the keys of an issuer through its provider configuration (OpenID
// Connect Discovery 1.0, section 4).
func (f fetcher) discover(ctx context.Context, issuer string) (none document, err error) {
	address := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
	read, err := f.get(ctx, address)
	if err != nil {
		return none, err
	}
	var configuration struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(read.text, &configuration); err != nil {
		return none, fmt.Errorf("reading %s: %w", address, err)
	}
	if configuration.Issuer != issuer {
		return none, fmt.Errorf("%s has issuer %.200q: set the option issuer to exactly this value if you trust the issuer", address, configuration.Issuer)
	}
	if err := checkURL(configuration.Keys, "https://id.example.com/keys.json"); err != nil {
		return none, fmt.Errorf("invalid jwks_uri in %s: %w", address, err)
	}
	if strings.HasPrefix(issuer, "https:") && !strings.HasPrefix(configuration.Keys, "https:") {
		return none, fmt.Errorf("invalid jwks_uri in %s: must be an https URL, because the issuer is one", address)
	}
	return f.get(ctx, configuration.Keys)
}

// freshFor returns the freshness lifetime of a response (RFC 9111, section 4.2), clamped
// to the bounds.
func freshFor(header http.Header) time.Duration {
	fresh, said := defaultFresh, false
	for _, line := range header.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
			switch name {
			case "no-store", "no-cache":
				return minFresh
			case "max-age":
				seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
				if err == nil && !said {
					fresh, said = time.Duration(seconds)*time.Second, true
				}
			}
		}
	}
	if age, err := strconv.ParseUint(header.Get("Age"), 10, 31); err == nil && said {
		fresh -= time.Duration(age) * time.Second
	}
	return min(max(fresh, minFresh), maxFresh)
}

// readFile reads a document of at most maxDocument bytes from a file.
func readFile(path string) (none document, err error) {
	file, err := os.Open(path)
	if err != nil {
		return none, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxDocument+1))
	if err != nil {
		return none, err
	}
	if len(text) > maxDocument {
		return none, fmt.Errorf("%s is larger than %d bytes", path, maxDocument)
	}
	return document{text, fileFresh}, nil
}

// useSource returns the shared key source with a name such as `jwks_url
// https://id.example.com/keys`. A new source starts with the keys in first, if it is not
// empty.
func useSource(place string, parse parser, first []byte, load func(context.Context) (document, error)) (*keySource, error) {
	source, _, err := keySources.LoadOrNew(place, func() (caddy.Destructor, error) {
		s := &keySource{name: place, load: load, parse: parse, log: jwtLogger}
		if first != nil {
			if err := s.take(first); err != nil {
				return nil, err
			}
		}
		s.start()
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return source.(*keySource), nil
}

// jwtLogger returns the logger for state that survives configuration reloads.
func jwtLogger() *zap.Logger { return caddy.Log().Named("http.handlers.rgate_jwt") }
