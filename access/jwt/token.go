package jwt

import (
	"cmp"
	"errors"
	"net/http"
	"strings"

	"github.com/rgate/rgate/internal/httpx"
)

const authorization = "Authorization"

var (
	errNoToken       = errors.New("the request has no token")
	errSeveralTokens = errors.New("the request has several tokens")
	errBadCredential = errors.New("the request has a malformed token field")
)

// findToken returns the token of a request. It accepts equal tokens in several sources.
// Different tokens are an error, because the backend might use another one than the
// gateway.
func findToken(r *http.Request, sources []httpx.CredentialSource) (token string, err error) {
	for i := range sources {
		found, err := tokenIn(r, &sources[i])
		if err != nil {
			return "", err
		}
		if token != "" && found != "" && found != token {
			return "", errSeveralTokens
		}
		token = cmp.Or(token, found)
	}
	if token == "" {
		return "", errNoToken
	}
	return token, nil
}

// tokenIn returns the token in a source, or an empty string if there is none.
func tokenIn(r *http.Request, source *httpx.CredentialSource) (string, error) {
	value, ok := source.Only(r)
	if !ok {
		return "", errSeveralTokens
	}
	if source.Kind == httpx.Header {
		return bearerToken(value, source.Name == authorization)
	}
	return value, nil
}

// bearerToken returns the token in a header field value. If needsScheme is set, it ignores
// values without the scheme Bearer. Otherwise, the scheme is optional.
func bearerToken(value string, needsScheme bool) (string, error) {
	value = strings.TrimSpace(value)
	scheme, token, _ := strings.Cut(value, " ")
	if strings.EqualFold(scheme, "Bearer") {
		value = strings.TrimLeft(token, " ")
		if value == "" {
			return "", errBadCredential
		}
	} else if needsScheme {
		return "", nil
	}
	if strings.ContainsAny(value, " \t,") {
		return "", errBadCredential
	}
	return value, nil
}
