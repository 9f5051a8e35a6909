package apikey

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/access/ratelimit"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

// Options holds the valid keys and the request locations that are searched for a key. The
// handler and the authentication provider share them.
type Options struct {
	policy.IdentityOptions

	// The keys, as SHA-256 hashes. They take precedence over the keys in `file`. Default:
	// none. `keys` or `file` is required.
	Keys []Key `json:"keys,omitempty"`

	// The path of a YAML or JSON file with a list of keys. It is checked for changes
	// every second. If it becomes invalid or disappears, the last valid keys stay in use.
	// When the configuration is loaded, an unreadable or invalid file is an error.
	// Placeholders such as `{env.HOME}` are replaced.
	File string `json:"file,omitempty"`

	// The header field with the key. In `Authorization`, the scheme `ApiKey` or `Bearer`
	// precedes the key. Default: `X-API-Key` if neither `query` nor `cookie` is set.
	Header string `json:"header,omitempty"`

	// The query parameter with the key. Default: none.
	Query string `json:"query,omitempty"`

	// The cookie with the key. Default: none.
	Cookie string `json:"cookie,omitempty"`

	// Whether the key is removed from the request before it is sent to the backend.
	// Default: false.
	HideCredentials bool `json:"hide_credentials,omitempty"`

	sources []httpx.CredentialSource
	keys    keySet
	file    *keyFile          // nil without a key file
	limits  *ratelimit.Shared // nil before start
	logger  *zap.Logger
}

// DefaultKeyHeader is the header field that is searched for a key if no other source is
// configured.
const DefaultKeyHeader = "X-API-Key"

// Reasons to reject a request. They are logged and not sent to the client.
var (
	errNoKey      = errors.New("the request has no API key")
	errUnknownKey = errors.New("unknown API key")
	errExpiredKey = errors.New("the API key has expired")
	errKeyRate    = errors.New("the API key exceeds its rate limit")
)

// start loads the keys and acquires the shared resources.
func (a *Options) start(logger *zap.Logger) error {
	a.logger = logger
	var err error
	if a.keys, err = a.parsedKeys(); err != nil {
		return err
	}
	if a.Header == "" && a.Query == "" && a.Cookie == "" {
		a.Header = DefaultKeyHeader
	}
	if a.limits, err = ratelimit.AcquireShared(); err != nil {
		return err
	}
	a.sources = a.credentialSources()
	if a.File == "" {
		return nil
	}
	path, err := caddy.NewReplacer().ReplaceOrErr(a.File, true, true)
	if err == nil {
		a.file, err = watchFile(path, logger)
	}
	if err != nil {
		return fmt.Errorf("reading the API keys: %w", err)
	}
	return nil
}

// stop releases the shared resources. Requests in flight can still use them.
func (a *Options) stop() error {
	var errs [2]error
	if a.limits != nil {
		errs[0] = a.limits.Release()
	}
	if a.file != nil {
		errs[1] = a.file.close()
	}
	return errors.Join(errs[:]...)
}

// Check returns an error for the first invalid option. It does not read the key file.
func (a *Options) Check() error {
	if len(a.Keys) == 0 && a.File == "" {
		return options.Errorf("keys", "keys or file is required: set one of them")
	}
	if a.Header != "" && !httpguts.ValidHeaderFieldName(a.Header) {
		return options.Errorf("header", "invalid header %q: must be a field name such as %s", a.Header, DefaultKeyHeader)
	}
	if a.Cookie != "" && !httpguts.ValidHeaderFieldName(a.Cookie) { // cookie names allow the same characters
		return options.Errorf("cookie", "invalid cookie %q: must be a cookie name such as api_key", a.Cookie)
	}
	_, err := a.parsedKeys()
	return err
}

// parsedKeys returns the keys of the option `keys`.
func (a *Options) parsedKeys() (keySet, error) {
	keys := make(keySet, len(a.Keys))
	for i := range a.Keys {
		if err := keys.add(&a.Keys[i], i+1); err != nil {
			return nil, options.Errorf(fmt.Sprintf("keys[%d].%s", i, err.Field()), "%v", err)
		}
	}
	return keys, nil
}

// credentialSources returns the sources of the key, in order of precedence.
func (a *Options) credentialSources() (sources []httpx.CredentialSource) {
	for _, source := range []httpx.CredentialSource{
		{Kind: httpx.Header, Name: textproto.CanonicalMIMEHeaderKey(a.Header)},
		{Kind: httpx.QueryParameter, Name: a.Query},
		{Kind: httpx.Cookie, Name: a.Cookie},
	} {
		if source.Name != "" {
			sources = append(sources, source)
		}
	}
	return sources
}

// presentedKey returns the first key in the sources, or an empty string.
func presentedKey(r *http.Request, sources []httpx.CredentialSource) string {
	for i := range sources {
		key := sources[i].First(r)
		if sources[i].Kind == httpx.Header && sources[i].Name == "Authorization" {
			key = schemeKey(key)
		}
		if key != "" {
			return key
		}
	}
	return ""
}

// schemeKey returns the key in an Authorization value, or an empty string if the scheme
// is neither ApiKey nor Bearer.
func schemeKey(value string) string {
	scheme, key, _ := strings.Cut(value, " ")
	if strings.EqualFold(scheme, "ApiKey") || strings.EqualFold(scheme, "Bearer") {
		return strings.TrimLeft(key, " ")
	}
	return ""
}

// authenticate returns the key of a request. If it rejects a known key, such as an
// expired one, it returns both the key and the error.
func (a *Options) authenticate(r *http.Request) (*apiKey, error) {
	presented := presentedKey(r, a.sources)
	if presented == "" {
		return nil, errNoKey
	}
	held := a.keys.find(presented)
	if held == nil && a.file != nil {
		held = a.file.find(presented)
	}
	switch {
	case held == nil:
		return nil, errUnknownKey
	case held.expired(time.Now()):
		return held, errExpiredKey
	}
	return held, nil
}

// allow counts a request against the limit of its key, sets the RateLimit header fields
// and reports whether the request is within the limit. The count of a key is shared by
// all routes and survives reloads.
func (a *Options) allow(header http.Header, held *apiKey) bool {
	return held.limit == (ratelimit.Limit{}) || a.limits.Allow(header, held.digest[:], held.limit)
}

// log logs the reason for a rejection. A missing key is logged at debug level, because
// clients often send their first request without credentials.
func (a *Options) log(r *http.Request, held *apiKey, err error) {
	level := zapcore.InfoLevel
	if errors.Is(err, errNoKey) {
		level = zapcore.DebugLevel
	}
	if entry := a.logger.Check(level, "request rejected by api_key"); entry != nil {
		consumer := ""
		if held != nil {
			consumer = held.who.Consumer
		}
		entry.Write(zap.Error(err), zap.String("consumer", consumer), zap.String("client_ip", trust.ClientAddress(r)))
	}
}

// addIdentity adds the consumer to the identity of a request. It removes the key from the
// request if hide_credentials is set.
func (a *Options) addIdentity(r *http.Request, held *apiKey) {
	if a.HideCredentials {
		for i := range a.sources {
			a.sources[i].Remove(r)
		}
	}
	identity.Add(r, held.who)
}

// RequestFields implements trust.FieldReader.
func (k *Options) RequestFields() []string { return []string{k.Header} }
