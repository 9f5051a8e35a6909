package jwt

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	jose "github.com/go-jose/go-jose/v4"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/placeholder"
	"github.com/rgate/rgate/policy"
)

// Options holds the requirements for JSON Web Tokens and the source of the keys. Exactly
// one of secret, public_key, public_key_file, jwks, jwks_file, jwks_url and discovery is
// required. The secret, public_key, issuer, audience, paths and URLs can contain
// placeholders such as {env.SECRET} and {file./run/secrets/jwt}, which are replaced when
// the configuration is loaded.
type Options struct {
	policy.IdentityOptions

	// The accepted algorithms: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384,
	// PS512, ES256, ES384, ES512, EdDSA, Ed25519. The HS algorithms require a secret, the
	// others public keys. Required; tokens with any other algorithm are rejected.
	Algorithms []string `json:"algorithms,omitempty"`

	// The secret for HS256, HS384 and HS512. It must be at least as long as the hash: 32,
	// 48 or 64 bytes (RFC 7518, section 3.2).
	Secret string `json:"secret,omitempty"`

	// One or more public keys or certificates in PEM format. The validity period of
	// certificates is ignored.
	PublicKey string `json:"public_key,omitempty"`

	// The path of a PEM file with public keys or certificates. It is reloaded when it
	// changes.
	PublicKeyFile string `json:"public_key_file,omitempty"`

	// A JWK Set (RFC 7517), as an object or a JSON string.
	JWKS JWKS `json:"jwks,omitempty"`

	// The path of a file with a JWK Set. It is reloaded when it changes.
	JWKSFile string `json:"jwks_file,omitempty"`

	// The http or https URL of a JWK Set. It is fetched in the background, again when its
	// Cache-Control lifetime expires and when a token cannot be verified.
	JWKSURL string `json:"jwks_url,omitempty"`

	// The path of a PEM file with CA certificates that verify the server of `jwks_url` or
	// `discovery`. Default: the system's certificates.
	CAFile string `json:"ca_file,omitempty"`

	// Whether the URL of the JWK Set is read from the issuer's provider configuration
	// (OpenID Connect Discovery). Requires `issuer`. Default: false.
	Discovery bool `json:"discovery,omitempty"`

	// The required value of the `iss` claim. Default: any value.
	Issuer string `json:"issuer,omitempty"`

	// The accepted audiences. The `aud` claim must equal or contain one of them. Default:
	// any audience.
	Audience []string `json:"audience,omitempty"`

	// The tolerated clock skew. Tokens are accepted this much after `exp` and before
	// `nbf` and `iat`. Maximum: 1h. Default: 60s.
	Leeway *caddy.Duration `json:"leeway,omitempty"`

	// The sources of the token: `header:NAME`, `cookie:NAME` or `query:NAME`. In the
	// `Authorization` header, the token follows the scheme Bearer. In other headers, the
	// scheme is optional. Default: `header:Authorization`.
	TokenFrom []string `json:"token_from,omitempty"`

	// The claim with the user name. Dots select members of objects, also in the other
	// claim options. Default: `sub`.
	UserClaim string `json:"user_claim,omitempty"`

	// The claim with the scopes, as a space-separated string or a list. Default: `scope`,
	// or `scp` if the token has no `scope`.
	ScopeClaim string `json:"scope_claim,omitempty"`

	// The claim with the roles, as a list, or a string with one role. Shorthand for
	// `claim` in `roles`. Default: `roles`.
	RolesClaim string `json:"roles_claim,omitempty"`

	// The claim with the roles and the separator of roles in a string. Default: the claim
	// `roles`, in which a string is one role.
	Roles *Roles `json:"roles,omitempty"`

	// Whether requests without a token are accepted. Invalid tokens are always rejected.
	// Default: false.
	Optional bool `json:"optional,omitempty"`

	// Whether the token is removed from the request before it is sent to the backend.
	// Default: false.
	HideCredentials bool `json:"hide_credentials,omitempty"`

	// The maximum number of cached valid tokens, up to 1000000. -1 disables the cache.
	// Default: 10000.
	CacheSize int `json:"cache_size,omitempty" default:"10000"`

	// The realm in WWW-Authenticate challenges. Default: `rgate`.
	Realm string `json:"realm,omitempty"`
}

// Roles configures the claim with the roles of a token.
type Roles struct {
	// The claim with the roles, as a list or a string. A string is one role unless
	// `split` is set. Dots select members of objects. Default: `roles`.
	Claim string `json:"claim,omitempty" caddyfile:"arg"`

	// The separator of roles in a string, such as a space or a comma. Spaces around roles
	// and empty roles are removed. Default: empty, a string is one role such as `Read
	// Only Admin`.
	Split *string `json:"split,omitempty"`
}

const (
	defaultLeeway    = time.Minute
	maxLeeway        = time.Hour
	defaultCacheSize = 10_000
	maxCacheSize     = 1_000_000
)

// JWKS is a JWK Set as JSON.
type JWKS string

// UnmarshalText accepts any string.
func (s *JWKS) UnmarshalText(text []byte) error {
	*s = JWKS(text)
	return nil
}

// UnmarshalJSON decodes an object, or a string that contains JSON.
func (s *JWKS) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = string(data)
	}
	*s = JWKS(text)
	return nil
}

// MarshalJSON encodes valid JSON objects as objects and other values as strings.
func (s JWKS) MarshalJSON() ([]byte, error) {
	if text := strings.TrimSpace(string(s)); strings.HasPrefix(text, "{") && json.Valid([]byte(text)) {
		return []byte(text), nil
	}
	return json.Marshal(string(s))
}

// Check returns the first invalid option as an *options.Error.
func (o *Options) Check() error { return o.check(placeholder.Has) }

// check returns the first invalid option. It does not validate a secret, URL or public key
// for which unknown returns true, because its placeholders are not replaced yet.
func (o *Options) check(unknown func(text string) bool) error {
	for _, check := range []func() *options.Error{
		o.checkAlgorithms,
		o.checkKeys,
		func() *options.Error { return o.checkSecret(unknown) },
		func() *options.Error { return o.checkURLs(unknown) },
		func() *options.Error { return o.checkPublicKeys(unknown) },
		o.checkPlaces,
		o.checkRest,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) checkAlgorithms() *options.Error {
	if len(o.Algorithms) == 0 {
		return options.Errorf("algorithms", "algorithms is required: set the algorithms that sign tokens, such as RS256")
	}
	known := make([]string, len(signingAlgorithms))
	for i, algorithm := range signingAlgorithms {
		known[i] = string(algorithm)
	}
	for i, name := range o.Algorithms {
		field := fmt.Sprintf("algorithms[%d]", i)
		if strings.EqualFold(name, "none") {
			return options.Errorf(field, "invalid algorithm %q: must be an algorithm that signs tokens, such as RS256", name)
		}
		if !slices.Contains(known, name) {
			return options.Errorf(field, "unknown algorithm %q%s: use %s", name, options.Suggest(name, known), strings.Join(known, ", "))
		}
		if isSymmetric(jose.SignatureAlgorithm(name)) != isSymmetric(jose.SignatureAlgorithm(o.Algorithms[0])) {
			return options.Errorf(field, "algorithms %s and %s cannot be combined: HS* requires a secret, the others require public keys: remove one of the two", o.Algorithms[0], name)
		}
	}
	return nil
}

// keyOptions returns the names of the key source options that are set.
func (o *Options) keyOptions() (used []string) {
	for _, option := range []struct {
		name string
		used bool
	}{
		{"secret", o.Secret != ""}, {"public_key", o.PublicKey != ""}, {"public_key_file", o.PublicKeyFile != ""},
		{"jwks", o.JWKS != ""}, {"jwks_file", o.JWKSFile != ""}, {"jwks_url", o.JWKSURL != ""}, {"discovery", o.Discovery},
	} {
		if option.used {
			used = append(used, option.name)
		}
	}
	return used
}

func (o *Options) checkKeys() *options.Error {
	used := o.keyOptions()
	symmetric := isSymmetric(jose.SignatureAlgorithm(o.Algorithms[0]))
	switch {
	case len(used) == 0 && symmetric:
		return options.Errorf("algorithms", "algorithm %s requires secret: set secret", o.Algorithms[0])
	case len(used) == 0:
		return options.Errorf("algorithms", "algorithm %s requires keys: set one of public_key, public_key_file, jwks, jwks_file, jwks_url, or discovery with issuer", o.Algorithms[0])
	case len(used) > 1:
		return options.Errorf(used[1], "%s and %s cannot be combined: remove one of them", used[0], used[1])
	case symmetric && used[0] != "secret":
		return options.Errorf(used[0], "%s and algorithm %s cannot be combined, because public keys cannot be secrets: use the algorithm of the keys, such as RS256 or ES256", used[0], o.Algorithms[0])
	case !symmetric && used[0] == "secret":
		return options.Errorf("secret", "secret and algorithm %s cannot be combined: use HS256, HS384 or HS512, or replace secret with public keys", o.Algorithms[0])
	case o.CAFile != "" && o.JWKSURL == "" && !o.Discovery:
		return options.Errorf("ca_file", "ca_file requires jwks_url or discovery: set one of them or remove ca_file")
	case o.Discovery && o.Issuer == "":
		return options.Errorf("discovery", "discovery requires issuer: set issuer to the URL of the issuer, or remove discovery")
	}
	return nil
}

func (o *Options) checkSecret(unknown func(string) bool) *options.Error {
	if o.Secret == "" || unknown(o.Secret) {
		return nil
	}
	least := 0
	for _, name := range o.Algorithms {
		least = max(least, map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}[name])
	}
	if len(o.Secret) < least {
		return options.Errorf("secret", "invalid secret of %d bytes: %s requires at least %d: generate a secret with `openssl rand -base64 %d`",
			len(o.Secret), strings.Join(o.Algorithms, ", "), least, least)
	}
	return nil
}

func (o *Options) checkURLs(unknown func(string) bool) *options.Error {
	for _, option := range []struct {
		name, value string
		needed      bool
		example     string
	}{
		{"jwks_url", o.JWKSURL, o.JWKSURL != "", "https://id.example.com/keys.json"},
		{"issuer", o.Issuer, o.Discovery, "https://id.example.com"},
	} {
		if !option.needed || unknown(option.value) {
			continue
		}
		if err := checkURL(option.value, option.example); err != nil {
			return options.Errorf(option.name, "invalid %s: %v", option.name, err)
		}
	}
	return nil
}

// checkPublicKeys validates the keys in `public_key` and `jwks`.
func (o *Options) checkPublicKeys(unknown func(string) bool) *options.Error {
	if o.PublicKey != "" && !unknown(o.PublicKey) {
		_, _, err := o.keysOf("public_key", []byte(o.PublicKey), parsePEM)
		return err
	}
	if o.JWKS != "" {
		_, _, err := o.keysOf("jwks", []byte(o.JWKS), parseJWKS)
		return err
	}
	return nil
}

// keysOf parses the keys of an option and requires one that supports an accepted
// algorithm. The second result holds the reasons for ignored keys.
func (o *Options) keysOf(option string, text []byte, parse parser) (*keySet, []error, *options.Error) {
	keys, left, err := parse(text)
	if err != nil {
		return nil, nil, options.Errorf(option, "invalid %s: %v", option, err)
	}
	algorithms := make([]jose.SignatureAlgorithm, len(o.Algorithms))
	for i, name := range o.Algorithms {
		algorithms[i] = jose.SignatureAlgorithm(name)
	}
	if !keys.suitsAny(algorithms) {
		return nil, nil, options.Errorf(option, "%s contains no key for the algorithms %s: set algorithms to the algorithms of its keys", option, strings.Join(o.Algorithms, ", "))
	}
	return keys, left, nil
}

// checkURL returns an error if a URL is invalid.
func checkURL(text, example string) error {
	address, err := url.Parse(text)
	switch {
	case err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http":
		return fmt.Errorf("%q: must be a URL such as %s", text, example)
	case address.User != nil:
		return errors.New("must not contain a user, which would appear in logs")
	}
	return nil
}

// RequestFields implements trust.FieldReader.
func (o *Options) RequestFields() (names []string) {
	for _, text := range o.TokenFrom {
		if source, ok := httpx.ParseCredentialSource(text); ok && source.Kind == httpx.Header {
			names = append(names, source.Name)
		}
	}
	return names
}

func (o *Options) checkPlaces() *options.Error {
	var seen []httpx.CredentialSource
	for i, text := range o.TokenFrom {
		field := fmt.Sprintf("token_from[%d]", i)
		source, ok := httpx.ParseCredentialSource(text)
		if !ok {
			return options.Errorf(field, "invalid token_from %q: must be header:NAME, cookie:NAME or query:NAME", text)
		}
		if slices.Contains(seen, source) {
			return options.Errorf(field, "duplicate token_from %q: remove one of the two", text)
		}
		seen = append(seen, source)
	}
	return nil
}

func (o *Options) checkRest() *options.Error {
	if o.Roles != nil && o.Roles.Claim != "" && o.RolesClaim != "" {
		return options.Errorf("roles_claim", "roles_claim and claim in roles cannot be combined: remove roles_claim")
	}
	if i := slices.Index(o.Audience, ""); i >= 0 {
		return options.Errorf(fmt.Sprintf("audience[%d]", i), `invalid audience "": must not be empty: set the audience of the tokens, or remove the empty value`)
	}
	if o.Leeway != nil && (*o.Leeway < 0 || time.Duration(*o.Leeway) > maxLeeway) {
		return options.Errorf("leeway", "invalid leeway %s: must be 0s to 1h", time.Duration(*o.Leeway))
	}
	if o.CacheSize < -1 || o.CacheSize > maxCacheSize {
		return options.Errorf("cache_size", "invalid cache_size %d: must be 1 to %d, or -1 for no cache", o.CacheSize, maxCacheSize)
	}
	if !identity.IsHeaderText(o.Realm) || strings.ContainsAny(o.Realm, `"\`) {
		return options.Errorf("realm", "invalid realm %q: must not contain quotes, backslashes, control characters or surrounding spaces", o.Realm)
	}
	return nil
}

// resolved returns the validated options with placeholders replaced and most defaults
// set.
func (o *Options) resolved() (*Options, error) {
	r := *o
	r.Audience = slices.Clone(o.Audience)
	var wrong error
	resolve := func(name string, value *string) {
		if wrong == nil {
			*value, wrong = options.Replace(name, *value)
		}
	}
	resolve("secret", &r.Secret)
	resolve("public_key", &r.PublicKey)
	resolve("public_key_file", &r.PublicKeyFile)
	resolve("jwks_file", &r.JWKSFile)
	resolve("jwks_url", &r.JWKSURL)
	resolve("ca_file", &r.CAFile)
	resolve("issuer", &r.Issuer)
	for i := range r.Audience {
		resolve(fmt.Sprintf("audience[%d]", i), &r.Audience[i])
	}
	if wrong != nil {
		return nil, wrong
	}
	r.UserClaim = cmp.Or(o.UserClaim, "sub")
	roles := cmp.Or(o.Roles, new(Roles))
	r.Roles = &Roles{Claim: cmp.Or(roles.Claim, o.RolesClaim, "roles"), Split: cmp.Or(roles.Split, new(string))}
	r.RolesClaim = ""
	r.Realm = cmp.Or(o.Realm, "rgate")
	r.CacheSize = cmp.Or(o.CacheSize, defaultCacheSize)
	return &r, r.check(func(string) bool { return false })
}
