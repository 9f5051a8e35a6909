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

// Options are the requirements for JSON Web Tokens and their sources. Exactly one of
// secret, public_key, public_key_file, jwks, jwks_file, jwks_url and discovery provides the
// keys. Values can have placeholders such as {env.SECRET} and {file./run/secrets/jwt},
// which are replaced when the configuration is loaded.
type Options struct {
	policy.IdentityOptions

	// The accepted algorithms: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384,
	// PS512, ES256, ES384, ES512, EdDSA, Ed25519. Those that begin with HS require a
	// secret, the others public keys. Required; the algorithm in a token is never trusted.
	Algorithms []string `json:"algorithms,omitempty"`

	// The secret of HS256, HS384 and HS512: at least 32, 48 or 64 bytes, the size of the
	// hash (RFC 7518, section 3.2).
	Secret string `json:"secret,omitempty"`

	// One or several public keys or certificates in PEM. The validity period of a
	// certificate is ignored.
	PublicKey string `json:"public_key,omitempty"`

	// A file with such keys. It is read again when it changes.
	PublicKeyFile string `json:"public_key_file,omitempty"`

	// A JWK Set (RFC 7517): an object, or its text in JSON.
	JWKS JWKS `json:"jwks,omitempty"`

	// A file with a JWK Set. It is read again when it changes.
	JWKSFile string `json:"jwks_file,omitempty"`

	// The URL of a JWK Set, http or https. It is read in the background when its
	// Cache-Control expires and when a token cannot be verified.
	JWKSURL string `json:"jwks_url,omitempty"`

	// A file with certificates in PEM that verify the server of `jwks_url` or `discovery`.
	// Default: the certificates of the system.
	CAFile string `json:"ca_file,omitempty"`

	// Whether the URL of the JWK Set is taken from the configuration of the issuer (OpenID
	// Connect Discovery). Default: false.
	Discovery bool `json:"discovery,omitempty"`

	// The required value of the claim `iss`. Default: any.
	Issuer string `json:"issuer,omitempty"`

	// The accepted values of the claim `aud`, which must be or contain one of them.
	// Default: any.
	Audience []string `json:"audience,omitempty"`

	// The tolerated clock difference: a token is valid that much longer than `exp` and
	// earlier than `nbf` and `iat`. At most 1h. Default: 60s.
	Leeway *caddy.Duration `json:"leeway,omitempty"`

	// The sources of the token: `header:NAME`, `cookie:NAME` or `query:NAME`. In the header
	// `Authorization`, the token follows the word Bearer, which is optional in other
	// headers. Default: `header:Authorization`.
	TokenFrom []string `json:"token_from,omitempty"`

	// The claim with the user name. Dots select members of objects, here and in the next
	// two options. Default: `sub`.
	UserClaim string `json:"user_claim,omitempty"`

	// The claim with the scopes: text separated by spaces, or a list. Default: `scope`, or
	// else `scp`.
	ScopeClaim string `json:"scope_claim,omitempty"`

	// The claim with the roles: a list, or text that is one role. A short form of `claim`
	// in `roles`. Default: `roles`.
	RolesClaim string `json:"roles_claim,omitempty"`

	// The claim with the roles, and how text is split. Default: the claim `roles`; text is
	// one role.
	Roles *Roles `json:"roles,omitempty"`

	// Whether requests without a token are accepted. Invalid tokens are rejected in any
	// case. Default: false.
	Optional bool `json:"optional,omitempty"`

	// Whether the token is removed from the request to the backend. Default: false.
	HideCredentials bool `json:"hide_credentials,omitempty"`

	// The maximum number of cached valid tokens, at most 1000000; -1 disables the cache.
	// Default: 10000.
	CacheSize int `json:"cache_size,omitempty" default:"10000"`

	// The realm in challenges to clients. Default: `rgate`.
	Realm string `json:"realm,omitempty"`
}

// Roles configures the roles of a token.
type Roles struct {
	// The claim with the roles: a list, or text that is one role unless `split` is set.
	// Dots select members of objects. Default: `roles`.
	Claim string `json:"claim,omitempty" caddyfile:"arg"`

	// The separator of roles in text, such as a space or a comma. Spaces around roles and
	// empty roles are removed. Default: empty, text is one role, such as `Read Only Admin`.
	Split *string `json:"split,omitempty"`
}

const (
	defaultLeeway    = time.Minute
	maxLeeway        = time.Hour
	defaultCacheSize = 10_000
	maxCacheSize     = 1_000_000
)

// JWKS is the text of a JWK Set.
type JWKS string

// UnmarshalText takes any text.
func (s *JWKS) UnmarshalText(text []byte) error {
	*s = JWKS(text)
	return nil
}

// UnmarshalJSON reads an object, or a string with its text.
func (s *JWKS) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = string(data)
	}
	*s = JWKS(text)
	return nil
}

// MarshalJSON writes the object, if the text is one, else a string.
func (s JWKS) MarshalJSON() ([]byte, error) {
	if text := strings.TrimSpace(string(s)); strings.HasPrefix(text, "{") && json.Valid([]byte(text)) {
		return []byte(text), nil
	}
	return json.Marshal(string(s))
}

// Check reports the first invalid option as a *policy.Error.
func (o *Options) Check() error { return o.check(placeholder.Has) }

// check skips texts whose value is unknown.
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
		return options.Errorf("algorithms", "algorithms are missing: say which ones tokens are signed with, such as RS256")
	}
	known := make([]string, len(signingAlgorithms))
	for i, algorithm := range signingAlgorithms {
		known[i] = string(algorithm)
	}
	for i, name := range o.Algorithms {
		field := fmt.Sprintf("algorithms[%d]", i)
		if strings.EqualFold(name, "none") {
			return options.Errorf(field, "algorithm %q accepts any token: use the one that tokens are signed with, such as RS256", name)
		}
		if !slices.Contains(known, name) {
			return options.Errorf(field, "algorithm %q is unknown%s: use one of %s", name, options.Suggest(name, known), strings.Join(known, ", "))
		}
		if isSymmetric(jose.SignatureAlgorithm(name)) != isSymmetric(jose.SignatureAlgorithm(o.Algorithms[0])) {
			return options.Errorf(field, "algorithms %s and %s cannot stand together: HS* are for a secret and the others for public keys", o.Algorithms[0], name)
		}
	}
	return nil
}

// keyOptions returns the names of the key options that are set.
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
		return options.Errorf("algorithms", "algorithm %s needs a key: give the option secret", o.Algorithms[0])
	case len(used) == 0:
		return options.Errorf("algorithms", "algorithm %s needs keys: give one of public_key, public_key_file, jwks, jwks_file, jwks_url, or discovery with issuer", o.Algorithms[0])
	case len(used) > 1:
		return options.Errorf(used[1], "keys come from both %s and %s: keep one of them", used[0], used[1])
	case symmetric && used[0] != "secret":
		return options.Errorf(used[0], "%s has public keys, with which anybody could sign by %s: use the algorithm of the keys, such as RS256 or ES256", used[0], o.Algorithms[0])
	case !symmetric && used[0] == "secret":
		return options.Errorf("secret", "a secret is for HS256, HS384 and HS512, not %s: give public keys, or use one of those", o.Algorithms[0])
	case o.CAFile != "" && o.JWKSURL == "" && !o.Discovery:
		return options.Errorf("ca_file", "ca_file requires jwks_url or discovery: set one of them or remove ca_file")
	case o.Discovery && o.Issuer == "":
		return options.Errorf("discovery", "discovery needs the issuer: give its address as issuer")
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
		return options.Errorf("secret", "the secret has %d bytes, and %s needs at least %d: make one with `openssl rand -base64 %d`",
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
			return options.Errorf(option.name, "%s %v", option.name, err)
		}
	}
	return nil
}

// checkPublicKeys parses the keys in the configuration.
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

// keysOf parses the keys of an option, of which one must suit the algorithms. The second
// result has the reasons why others are ignored.
func (o *Options) keysOf(option string, text []byte, parse parser) (*keySet, []error, *options.Error) {
	keys, left, err := parse(text)
	if err != nil {
		return nil, nil, options.Errorf(option, "%s cannot be used: %v", option, err)
	}
	algorithms := make([]jose.SignatureAlgorithm, len(o.Algorithms))
	for i, name := range o.Algorithms {
		algorithms[i] = jose.SignatureAlgorithm(name)
	}
	if !keys.suitsAny(algorithms) {
		return nil, nil, options.Errorf(option, "%s has no key for the algorithms %v: use those of its keys", option, algorithms)
	}
	return keys, left, nil
}

// checkURL returns what is wrong with a URL.
func checkURL(text, example string) error {
	address, err := url.Parse(text)
	switch {
	case err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http":
		return fmt.Errorf("%q is not a web address: use one such as %s", text, example)
	case address.User != nil:
		return errors.New("has a user in it, who would be seen in logs: use an address without")
	}
	return nil
}

func (o *Options) checkPlaces() *options.Error {
	var seen []httpx.CredentialSource
	for i, text := range o.TokenFrom {
		field := fmt.Sprintf("token_from[%d]", i)
		source, ok := httpx.ParseCredentialSource(text)
		if !ok {
			return options.Errorf(field, "token_from %q is not a place: use header:NAME, cookie:NAME or query:NAME", text)
		}
		if slices.Contains(seen, source) {
			return options.Errorf(field, "token_from %q is given twice: remove one", text)
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
		return options.Errorf(fmt.Sprintf("audience[%d]", i), "an audience is empty: give its name, or none for any")
	}
	if o.Leeway != nil && (*o.Leeway < 0 || time.Duration(*o.Leeway) > maxLeeway) {
		return options.Errorf("leeway", "leeway %s is out of range: use 0s to 1h", time.Duration(*o.Leeway))
	}
	if o.CacheSize < -1 || o.CacheSize > maxCacheSize {
		return options.Errorf("cache_size", "cache_size %d is out of range: use 1 to %d, or -1 for no cache", o.CacheSize, maxCacheSize)
	}
	if !identity.IsHeaderText(o.Realm) || strings.ContainsAny(o.Realm, `"\`) {
		return options.Errorf("realm", "realm %q has characters that cannot be sent: use letters, digits and spaces", o.Realm)
	}
	return nil
}

// resolved returns the options with placeholders replaced.
func (o *Options) resolved() (*Options, error) {
	r := *o
	r.Audience = slices.Clone(o.Audience)
	var wrong *options.Error
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
