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

// tokenRules are the requirements for tokens.
type tokenRules struct {
	algorithms []jose.SignatureAlgorithm
	issuer     string   // empty for any
	audience   []string // one of them; empty for any
	leeway     time.Duration

	userClaim, scopeClaim, rolesClaim string // paths of claims; scopeClaim may be empty

	rolesSeparator string // at which a text is split into roles; empty for one role
}

// verified is a valid token. It never changes.
type verified struct {
	who identity.Identity

	// The period of validity, without its end, in milliseconds since 1970.
	notBefore, expires int64

	token tokenDigest // for the cache
	keys  *keySet     // that verified it
}

// maxTokenLength limits the work for a token.
const maxTokenLength = 16 << 10

// parse parses a token in compact form (RFC 7515, section 7.1) and checks what needs no
// key, such as its algorithm.
func (rules *tokenRules) parse(text string) (*jose.JSONWebSignature, error) {
	if len(text) > maxTokenLength {
		return nil, fmt.Errorf("it is longer than %d bytes", maxTokenLength)
	}
	for i := range len(text) {
		// Decoders of Base64 pass over line breaks.
		if c := text[i]; c != '.' && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return nil, errors.New("it is not a JSON Web Token")
		}
	}
	token, err := jose.ParseSignedCompact(text, rules.algorithms)
	if err != nil {
		var algorithm *jose.ErrUnexpectedSignatureAlgorithm
		if errors.As(err, &algorithm) {
			return nil, fmt.Errorf("its algorithm %.16q is not among those that are allowed", algorithm.Got)
		}
		return nil, errors.New("it is not a JSON Web Token")
	}
	extra := token.Signatures[0].Protected.ExtraHeaders
	for _, name := range []jose.HeaderKey{"crit", "b64"} { // for a token, RFC 7797 forbids the latter
		if _, ok := extra[name]; ok {
			return nil, fmt.Errorf("its header has %q, which is not supported", name)
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
		return nil, fmt.Errorf("its issuer is %.100q", issuer)
	}
	if len(rules.audience) > 0 && !slices.ContainsFunc(texts(claims["aud"]), func(audience string) bool {
		return slices.Contains(rules.audience, audience)
	}) {
		return nil, errors.New("it is for another audience")
	}
	return v, rules.identity(&v.who)
}

// inTime returns an error if a token is outside of its period.
func (v *verified) inTime(now time.Time) error {
	switch t := now.UnixMilli(); {
	case t >= v.expires:
		return errors.New("it has expired")
	case t < v.notBefore:
		return errors.New("it is not valid yet")
	}
	return nil
}

// parseClaims decodes a payload. Numbers keep all digits.
func parseClaims(payload []byte) (claims map[string]any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	if err := decoder.Decode(&claims); err != nil || claims == nil {
		return nil, errors.New("its claims are not a JSON object")
	}
	if _, err := decoder.Token(); err != io.EOF {
		return nil, errors.New("its claims are followed by something else")
	}
	return claims, nil
}

// period returns the period of validity, including the leeway.
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

// milliseconds parses a NumericDate (RFC 7519, section 2): seconds with an optional
// fraction.
func milliseconds(claims map[string]any, name string) (int64, error) {
	number, ok := claims[name].(json.Number)
	if !ok {
		return 0, fmt.Errorf("it has no claim %q that is a number", name)
	}
	seconds, err := number.Float64()
	if err != nil || math.Abs(seconds) > 1<<50 {
		return 0, fmt.Errorf("its claim %q is out of range", name)
	}
	return int64(math.Round(seconds * 1000)), nil
}

// identity sets user, scopes and roles from the claims.
func (rules *tokenRules) identity(who *identity.Identity) error {
	switch user, _ := who.Claim(rules.userClaim); user := user.(type) {
	case string:
		who.User = user
	case json.Number:
		who.User = user.String()
	}
	// A backend would trim the name or end the header field.
	if !identity.IsHeaderText(who.User) {
		return fmt.Errorf("its claim %q has control characters or spaces around it", rules.userClaim)
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

// rolesIn returns the roles of a claim. A text is one role, for roles may have spaces in
// them, unless the rules name what separates several.
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

// texts returns a claim that is a string or a list of strings. Other elements of the list
// are ignored.
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

// scopesIn returns the scopes of a claim: a list of texts, or one text with spaces between
// the scopes (RFC 8693, section 4.2), which have none in them.
func scopesIn(claim any) []string {
	if text, ok := claim.(string); ok {
		return strings.Fields(text)
	}
	return texts(claim)
}

// isScopeToken reports whether a text is a scope (RFC 6749, section 3.3). If it had a
// space in it, it would be two wherever scopes are written in one text.
func isScopeToken(text string) bool {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c == '"' || c == '\\' || c == 0x7f {
			return false
		}
	}
	return text != ""
}
