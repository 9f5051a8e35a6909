package jwt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/options"
)

// verifier authenticates requests by token for the handler and the provider.
type verifier struct {
	rules    tokenRules
	sources  []httpx.CredentialSource
	optional bool
	hide     bool
	realm    string
	cache    *tokenCache // nil if the cache is disabled

	keys   *keySet    // static keys; nil if source is set
	source *keySource // refreshed keys; nil if keys is set
	place  string     // name of the source in keySources
}

// newVerifier returns a verifier. It does not wait for keys from a server.
func newVerifier(options *Options) (*verifier, error) {
	o, err := options.resolved()
	if err != nil {
		return nil, err
	}
	v := &verifier{
		rules: tokenRules{
			issuer: o.Issuer, audience: o.Audience, leeway: defaultLeeway,
			userClaim: o.UserClaim, scopeClaim: o.ScopeClaim,
			rolesClaim: o.Roles.Claim, rolesSeparator: *o.Roles.Split,
		},
		sources:  []httpx.CredentialSource{{Kind: httpx.Header, Name: authorization}},
		optional: o.Optional,
		hide:     o.HideCredentials,
		realm:    o.Realm,
		cache:    newTokenCache(o.CacheSize),
	}
	for _, name := range o.Algorithms {
		v.rules.algorithms = append(v.rules.algorithms, aliases(jose.SignatureAlgorithm(name))...)
	}
	if o.Leeway != nil {
		v.rules.leeway = time.Duration(*o.Leeway)
	}
	if len(o.TokenFrom) > 0 {
		v.sources = nil
	}
	for _, text := range o.TokenFrom {
		source, _ := httpx.ParseCredentialSource(text) // cannot fail: the options are validated
		v.sources = append(v.sources, source)
	}
	return v, v.useKeys(o)
}

// useKeys loads the static keys or acquires a key source.
func (v *verifier) useKeys(o *Options) (err error) {
	switch {
	case o.Secret != "":
		v.keys = secretKeys(o.Secret)
	case o.PublicKey != "":
		v.keys, err = v.keysOf(o, "public_key", []byte(o.PublicKey), parsePEM)
	case o.JWKS != "":
		v.keys, err = v.keysOf(o, "jwks", []byte(o.JWKS), parseJWKS)
	case o.PublicKeyFile != "":
		return v.useFile(o, "public_key_file", o.PublicKeyFile, parsePEM)
	case o.JWKSFile != "":
		return v.useFile(o, "jwks_file", o.JWKSFile, parseJWKS)
	case o.JWKSURL != "":
		return v.useServer(o, "jwks_url "+o.JWKSURL, func(ctx context.Context, f fetcher) (document, error) {
			return f.get(ctx, o.JWKSURL)
		})
	case o.Discovery:
		return v.useServer(o, "issuer "+o.Issuer, func(ctx context.Context, f fetcher) (document, error) {
			return f.discover(ctx, o.Issuer)
		})
	}
	return err
}

// useServer acquires a key source that fetches keys from a server. The CA file is read
// for each refresh and must be valid at startup.
func (v *verifier) useServer(o *Options, place string, load func(context.Context, fetcher) (document, error)) error {
	if o.CAFile != "" {
		place += " ca_file " + o.CAFile
		if _, err := newFetcher(o.CAFile); err != nil {
			return options.Errorf("ca_file", "invalid ca_file: %v: must be a PEM file of certificates", err)
		}
	}
	return v.useSource(place, parseJWKS, nil, func(ctx context.Context) (document, error) {
		f, err := newFetcher(o.CAFile)
		if err != nil {
			return document{}, err
		}
		return load(ctx, f)
	})
}

// keysOf parses the keys of an option and logs the reasons for ignored keys.
func (v *verifier) keysOf(o *Options, option string, text []byte, parse parser) (*keySet, error) {
	keys, left, err := o.keysOf(option, text, parse)
	if err != nil {
		return nil, err
	}
	logLeftOut(jwtLogger(), option, left)
	return keys, nil
}

// useFile acquires a key source that reads a file. The file must be valid at startup.
func (v *verifier) useFile(o *Options, option, path string, parse parser) error {
	read, err := readFile(path)
	if err != nil {
		return options.Errorf(option, "invalid %s: %v: correct the path or the file", option, err)
	}
	if _, err := v.keysOf(o, option, read.text, parse); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return v.useSource(option+" "+path, parse, read.text, func(context.Context) (document, error) { return readFile(path) })
}

func (v *verifier) useSource(place string, parse parser, first []byte, load func(context.Context) (document, error)) (err error) {
	if v.source, err = useSource(place, parse, first, load); err == nil {
		v.place = place
	}
	return err
}

// close releases the key source.
func (v *verifier) close() error {
	if v == nil || v.place == "" {
		return nil
	}
	_, err := keySources.Delete(v.place)
	return err
}

var errKeysMissing = errors.New("the token keys have not been loaded yet")

// serve authenticates a request. It accepts a request without a token if the token is
// optional.
func (v *verifier) serve(w http.ResponseWriter, r *http.Request) error {
	token, err := findToken(r, v.sources)
	if err == errNoToken && v.optional {
		return nil
	}
	if err != nil {
		return err
	}
	found, err := v.check(r.Context(), token)
	if err != nil {
		return err
	}
	for i := range v.sources {
		source := &v.sources[i]
		if found, err := tokenIn(r, source); err != nil || found != token {
			continue
		}
		if source.Kind == httpx.QueryParameter {
			w.Header().Set("Cache-Control", "private") // RFC 6750, section 2.3
		}
		if v.hide {
			source.Remove(r)
		}
	}
	identity.Add(r, found.who)
	return nil
}

// check returns the verified token, from the cache if possible.
func (v *verifier) check(ctx context.Context, text string) (*verified, error) {
	now, keys := time.Now(), v.keys
	if v.source != nil {
		keys = v.source.current()
	}
	var token tokenDigest
	if v.cache != nil && keys != nil {
		token = digestOf(text)
		if found := v.cache.get(&token, keys); found != nil {
			return found, found.inTime(now)
		}
	}
	parsed, err := v.rules.parse(text)
	if err != nil {
		return nil, err
	}
	payload, keys, err := v.payload(ctx, parsed, keys)
	if err != nil {
		return nil, err
	}
	found, err := v.rules.validate(payload, now)
	if err != nil {
		return nil, err
	}
	if v.cache != nil {
		found.token, found.keys = digestOf(text), keys
		v.cache.put(found, now.UnixMilli())
	}
	return found, nil
}

// payload returns the payload of a token and the keys that verified it. If the current
// keys do not verify it, payload requests a refresh from the source and tries again.
func (v *verifier) payload(ctx context.Context, token *jose.JSONWebSignature, keys *keySet) ([]byte, *keySet, error) {
	if keys == nil {
		if keys = v.source.newer(ctx, nil); keys == nil {
			return nil, nil, errKeysMissing
		}
	}
	payload, err := keys.verify(token)
	if err != nil && v.source != nil {
		if newer := v.source.newer(ctx, keys); newer != keys {
			keys = newer
			payload, err = keys.verify(token)
		}
	}
	return payload, keys, err
}

// challenge returns the status code of a rejected request and sets the WWW-Authenticate
// challenge (RFC 6750, section 3), or Retry-After if no keys are loaded yet.
func (v *verifier) challenge(header http.Header, err error) int {
	status, problem := http.StatusUnauthorized, `, error="invalid_token"`
	switch err {
	case errNoToken:
		problem = ""
	case errSeveralTokens, errBadCredential:
		status, problem = http.StatusBadRequest, `, error="invalid_request"`
	case errKeysMissing: // not the client's fault
		header.Set("Retry-After", "1")
		return http.StatusServiceUnavailable
	}
	header.Add("WWW-Authenticate", `Bearer realm="`+v.realm+`"`+problem)
	return status
}
