package jwt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/rgate/rgate/access/identity"
)

// tokenRules holds the requirements for tokens.
type tokenRules struct {
	algorithms []jose.SignatureAlgorithm
	issuer     string   // empty accepts any
	audience   []string // accepted audiences; empty accepts any
	leeway     time.Duration

	userClaim, scopeClaim, rolesClaim string // claim paths; scopeClaim may be empty

	rolesSeparator string // separator of roles in a string; empty for a single role
}

// verified is a valid token. It is immutable.
type verified struct {
	who identity.Identity

	// The validity period in milliseconds since 1970; expires is exclusive.
	notBefore, expires int64

	token tokenDigest // the cache key
	keys  *keySet     // the keys that verified the signature
}

// maxTokenLength is the maximum length of a token, which limits the work per request.
const maxTokenLength = 16 << 10

// parse parses a token in compact serialization (RFC 7515, section 7.1) and performs the
// checks that need no key, such as the check of the algorithm.
func (rules *tokenRules) parse(text string) (*jose.JSONWebSignature, error) {
	if len(text) > maxTokenLength {
		return nil, fmt.Errorf("the token is longer than %d bytes", maxTokenLength)
	}
	for i := range len(text) {
		// Base64 decoders ignore line breaks, so reject them here.
		if c := text[i]; c != '.' && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return nil, errors.New("the token is not a JSON Web Token")
		}
	}
	token, err := jose.ParseSignedCompact(text, rules.algorithms)
	if err != nil {
		var algorithm *jose.ErrUnexpectedSignatureAlgorithm
		if errors.As(err, &algorithm) {
			return nil, fmt.Errorf("algorithm %.16q of the token is not allowed", algorithm.Got)
		}
		return nil, errors.New("the token is not a JSON Web Token")
	}
	extra := token.Signatures[0].Protected.ExtraHeaders
	for _, name := range []jose.HeaderKey{"crit", "b64"} { // RFC 7797 forbids b64 in tokens
		if _, ok := extra[name]; ok {
			return nil, fmt.Errorf("unsupported header parameter %q of the token", name)
		}
	}
	return token, nil
}

// validate validates the claims of a token with a valid signature.
func (rules *tokenRules) validate(payload []byte, now time.Time) (*verified, error) {
	claims, err := parseClaims(payload)
	if err != nil {
		return nil, err
	}
	v := &verified{who: identity.Identity{Claims: claims}}
	if v.notBefore, v.expires, err = rules.period(claims); err != nil {
		return nil, err
	}
	if err := v.inTime(now); err != nil {
		return nil, err
	}
	if issuer, _ := claims["iss"].(string); rules.issuer != "" && issuer != rules.issuer {
		return nil, fmt.Errorf("unexpected issuer %.100q", issuer)
	}
	if len(rules.audience) > 0 && !slices.ContainsFunc(texts(claims["aud"]), func(audience string) bool {
		return slices.Contains(rules.audience, audience)
	}) {
		return nil, errors.New("unexpected audience")
	}
	return v, rules.identity(&v.who)
}

// inTime returns an error if a token is outside its validity period.
func (v *verified) inTime(now time.Time) error {
	switch t := now.UnixMilli(); {
	case t >= v.expires:
		return errors.New("the token has expired")
	case t < v.notBefore:
		return errors.New("the token is not valid yet")
	}
	return nil
}

// parseClaims decodes a payload. It preserves the precision of numbers.
func parseClaims(payload []byte) (claims map[string]any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	if err := decoder.Decode(&claims); err != nil || claims == nil {
		return nil, errors.New("the claims are not a JSON object")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("unexpected data after the claims")
	}
	return claims, nil
}

// period returns the validity period, extended by the leeway.
func (rules *tokenRules) period(claims map[string]any) (notBefore, expires int64, err error) {
	notBefore = math.MinInt64
	leeway := rules.leeway.Milliseconds()
	for _, name := range []string{"nbf", "iat"} {
		if claims[name] == nil {
			continue
		}
		t, err := milliseconds(claims, name)
		if err != nil {
			return 0, 0, err
		}
		notBefore = max(notBefore, t-leeway)
	}
	if expires, err = milliseconds(claims, "exp"); err != nil {
		return 0, 0, err
	}
	return notBefore, expires + leeway, nil
}

// milliseconds converts a NumericDate claim (RFC 7519, section 2), in seconds with an
// optional fraction, to milliseconds.
func milliseconds(claims map[string]any, name string) (int64, error) {
	number, ok := claims[name].(json.Number)
	if !ok {
		return 0, fmt.Errorf("claim %q is missing or not a number", name)
	}
	seconds, err := number.Float64()
	if err != nil || math.Abs(seconds) > 1<<50 {
		return 0, fmt.Errorf("claim %q is out of range", name)
	}
	return int64(math.Round(seconds * 1000)), nil
}

// identity sets the user, scopes and roles from the claims.
func (rules *tokenRules) identity(who *identity.Identity) error {
	switch user, _ := who.Claim(rules.userClaim); user := user.(type) {
	case string:
		who.User = user
	case json.Number:
		who.User = user.String()
	}
	// A backend would trim the name or treat a line break as the end of the field.
	if !identity.IsHeaderText(who.User) {
		return fmt.Errorf("claim %q has control characters or surrounding spaces", rules.userClaim)
	}
	scope, _ := who.Claim(rules.scopeClaim)
	if rules.scopeClaim == "" {
		var ok bool
		if scope, ok = who.Claims["scope"]; !ok {
			scope = who.Claims["scp"]
		}
	}
	for _, one := range scopesIn(scope) {
		if isScopeToken(one) {
			who.Scopes = append(who.Scopes, one)
		}
	}
	roles, _ := who.Claim(rules.rolesClaim)
	who.Roles = rules.rolesIn(roles)
	return nil
}

// rolesIn returns the roles in a claim. A string is one role, because roles may contain
// spaces, unless the rules set a separator.
func (rules *tokenRules) rolesIn(claim any) []string {
	text, ok := claim.(string)
	if !ok || rules.rolesSeparator == "" {
		return texts(claim)
	}
	var roles []string
	for role := range strings.SplitSeq(text, rules.rolesSeparator) {
		if role = strings.TrimSpace(role); role != "" {
			roles = append(roles, role)
		}
	}
	return roles
}

// texts returns a claim as a list of strings. It ignores list elements of other types.
func texts(claim any) []string {
	switch claim := claim.(type) {
	case string:
		return []string{claim}
	case []any:
		list := make([]string, 0, len(claim))
		for _, one := range claim {
			if text, ok := one.(string); ok {
				list = append(list, text)
			}
		}
		return list
	}
	return nil
}

// scopesIn returns the scopes in a claim: a list of strings, or a string of scopes
// separated by spaces (RFC 8693, section 4.2).
func scopesIn(claim any) []string {
	if text, ok := claim.(string); ok {
		return strings.Fields(text)
	}
	return texts(claim)
}

// isScopeToken reports whether a string is a scope token (RFC 6749, section 3.3). It also
// allows non-ASCII characters. A scope with a space would become two scopes in a
// space-separated list.
func isScopeToken(text string) bool {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c == '"' || c == '\\' || c == 0x7f {
			return false
		}
	}
	return text != ""
}
