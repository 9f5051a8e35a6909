package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/rgate/rgate/access/identity"
	"github.com/rgate/rgate/access/ratelimit"
	"github.com/rgate/rgate/internal/options"
)

// Key is the hash of an API key with the properties of its consumer.
type Key struct {
	// The name of the consumer. Several keys can belong to one consumer, for example
	// during a rotation. Required.
	Name string `json:"name,omitempty" caddyfile:"arg"`

	// The SHA-256 hash of the key as 64 hexadecimal digits, as printed by `rgate
	// hash-key`. It must be unique. Required.
	SHA256 string `json:"sha256,omitempty" caddyfile:"arg"`

	// The scopes of the consumer, for `rgate_require` and the backend. Scopes must consist
	// of printable ASCII characters without spaces, quotes or backslashes. Default: none.
	Scopes []string `json:"scopes,omitempty"`

	// The roles of the consumer, for `rgate_require`. Default: none.
	Roles []string `json:"roles,omitempty"`

	// The time at which the key expires, as an RFC 3339 timestamp or a date. A date means
	// midnight UTC. Default: the key does not expire.
	Expires Moment `json:"expires,omitempty"`

	// The rate limit of the key. Default: none.
	RateLimit *ratelimit.Limit `json:"rate_limit,omitempty"`
}

// digest is the SHA-256 of a key.
type digest [sha256.Size]byte

// apiKey is a parsed Key. It is immutable.
type apiKey struct {
	digest  digest
	who     identity.Identity
	expires time.Time       // zero if the key does not expire
	limit   ratelimit.Limit // zero without a limit
}

// expired reports whether the key has expired.
func (k *apiKey) expired(now time.Time) bool { return !k.expires.IsZero() && !now.Before(k.expires) }

// keySet holds keys by digest.
type keySet map[digest]*apiKey

// find returns the key that matches the presented one, or nil if it is unknown.
//
// The lookup does not leak keys through timing, because only hashes are looked up and
// compared. To learn one bit of a hash, a client needs inputs whose SHA-256 shares a
// prefix with it. Each bit doubles the work to find one, and the map uses a secret seed.
// The whole digest would not reveal the key. The final comparison takes constant time.
func (keys keySet) find(presented string) *apiKey {
	var buffer [128]byte // avoids an allocation
	presentedDigest := digest(sha256.Sum256(append(buffer[:0], presented...)))
	held := keys[presentedDigest]
	if held == nil || subtle.ConstantTimeCompare(held.digest[:], presentedDigest[:]) != 1 {
		return nil
	}
	return held
}

// add adds a key. position is its 1-based position in the list. The error names an option
// of the key and contains no secret, even if the user entered the key instead of its
// hash.
func (keys keySet) add(key *Key, position int) *options.Error {
	if key.Name == "" {
		return options.Errorf("name", "key %d requires name: set name to the consumer of the key", position)
	}
	if !identity.IsPrintable(key.Name) {
		return options.Errorf("name", "invalid name %q of key %d: must consist of printable characters without surrounding spaces", key.Name, position)
	}
	held := &apiKey{who: identity.Identity{Consumer: key.Name, Scopes: key.Scopes, Roles: key.Roles}}
	if len(key.SHA256) != hex.EncodedLen(len(held.digest)) {
		return digestError(key.Name)
	}
	if _, err := hex.Decode(held.digest[:], []byte(key.SHA256)); err != nil {
		return digestError(key.Name)
	}
	if other, ok := keys[held.digest]; ok {
		return options.Errorf("sha256", "keys of %q and %q have the same sha256: remove one of them, or generate another key with rgate hash-key --generate", other.who.Consumer, key.Name)
	}
	if err := identity.CheckScopes("scopes", key.Scopes); err != nil {
		return err
	}
	if err := identity.CheckNames("roles", key.Roles); err != nil {
		return err
	}
	if key.Expires != "" {
		var err error
		if held.expires, err = key.Expires.parse(); err != nil {
			return options.Errorf("expires", "invalid expires %q of key %q: must be a date such as 2027-01-31, or a time such as 2027-01-31T18:00:00Z", key.Expires, key.Name)
		}
	}
	if l := key.RateLimit; l != nil {
		if err := l.Check("rate_limit."); err != nil {
			return err
		}
		held.limit = *l
	}
	keys[held.digest] = held
	return nil
}

func digestError(name string) *options.Error {
	return options.Errorf("sha256", "invalid sha256 of key %q: must be 64 hexadecimal digits: use the output of rgate hash-key", name)
}

// Moment is a date or an RFC 3339 timestamp.
type Moment string

var errMoment = errors.New("must be a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z")

// UnmarshalJSON decodes a JSON string.
func (m *Moment) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		return errMoment
	}
	*m = Moment(text)
	return nil
}

// UnmarshalText accepts any string, including dates, for which YAML has a separate type.
func (m *Moment) UnmarshalText(text []byte) error {
	*m = Moment(text)
	return nil
}

// parse returns the time. A date means midnight UTC.
func (m Moment) parse() (time.Time, error) {
	if date, err := time.Parse(time.DateOnly, string(m)); err == nil {
		return date, nil
	}
	return time.Parse(time.RFC3339, string(m))
}
