package apikey

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/access/ratelimit"
)

// keyHash returns the hash of a key as in a configuration.
func keyHash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func TestKeyringFinds(t *testing.T) {
	keys := make(keySet)
	for i, key := range []Key{
		{Name: "alice", SHA256: keyHash("old"), Scopes: []string{"pay"}},
		{Name: "alice", SHA256: strings.ToUpper(keyHash("new")), Scopes: []string{"pay", "refund"}, Roles: []string{"accounting dept."}},
		{Name: "böb", SHA256: keyHash(strings.Repeat("long", 1000)), Expires: "2027-01-31T18:00:00+01:00"},
	} {
		if err := keys.add(&key, i+1); err != nil {
			t.Fatal(err)
		}
	}
	for presented, want := range map[string]string{
		"old": "alice [pay] []", "new": "alice [pay refund] [accounting dept.]", strings.Repeat("long", 1000): "böb [] []",
		"": "", "Old": "", "old ": "", "alice": "", keyHash("old"): "", strings.Repeat("long", 999): "",
	} {
		got := ""
		if held := keys.find(presented); held != nil {
			got = fmt.Sprint(held.who.Consumer, " ", held.who.Scopes, " ", held.who.Roles)
		}
		if got != want {
			t.Errorf("%.20q: got %q, want %q", presented, got, want)
		}
	}
}

func TestKeyExpires(t *testing.T) {
	for _, tc := range []struct {
		expires Moment
		now     string
	}{
		{"2027-01-31", "2027-01-31T00:00:00Z"},
		{"2027-01-31T18:00:00+01:00", "2027-01-31T17:00:00Z"},
	} {
		keys := make(keySet)
		if err := keys.add(&Key{Name: "a", SHA256: keyHash("k"), Expires: tc.expires}, 1); err != nil {
			t.Fatal(err)
		}
		held, at := keys.find("k"), parsedTime(t, tc.now)
		if held.expired(at.Add(-1)) || !held.expired(at) || !held.expired(at.AddDate(1, 0, 0)) {
			t.Errorf("%s: the key does not expire at %s", tc.expires, tc.now)
		}
	}
	keys := make(keySet)
	if err := keys.add(&Key{Name: "a", SHA256: keyHash("k")}, 1); err != nil || keys.find("k").expired(time.Now().AddDate(1000, 0, 0)) {
		t.Error("a key without an end has one")
	}
}

func parsedTime(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestWrongKeys(t *testing.T) {
	right := func(change func(*Key)) Key {
		key := Key{Name: "alice", SHA256: keyHash("k")}
		change(&key)
		return key
	}
	const secret = "sk-live-0123456789"
	for _, tc := range []struct {
		key          Key
		field, wrong string
	}{
		{right(func(k *Key) { k.Name = "" }), "name", "key 2 requires name: set name to the consumer of the key"},
		{right(func(k *Key) { k.Name = "a\nb" }), "name", `invalid name "a\nb" of key 2: must consist of printable`},
		{right(func(k *Key) { k.SHA256 = "" }), "sha256", "use the output of rgate hash-key"},
		{right(func(k *Key) { k.SHA256 = secret }), "sha256", `invalid sha256 of key "alice": must be 64 hexadecimal digits`},
		{right(func(k *Key) { k.SHA256 = strings.Repeat("g", 64) }), "sha256", "rgate hash-key"},
		{right(func(k *Key) { k.SHA256 = k.SHA256[1:] }), "sha256", "rgate hash-key"},
		{right(func(k *Key) { k.SHA256 = keyHash("first") }), "sha256", `keys of "first" and "alice" have the same sha256`},
		{right(func(k *Key) { k.Scopes = []string{"a", "b c"} }), "scopes", `invalid value "b c" of scopes`},
		{right(func(k *Key) { k.Scopes = []string{`a"`} }), "scopes", "without spaces, quotes or backslashes"},
		{right(func(k *Key) { k.Roles = []string{""} }), "roles", `invalid value "" of roles`},
		{right(func(k *Key) { k.Expires = "tomorrow" }), "expires", `invalid expires "tomorrow" of key "alice": must be a date such as 2027-01-31`},
		{right(func(k *Key) { k.Expires = "2027-02-30" }), "expires", "invalid expires"},
		{right(func(k *Key) { k.RateLimit = new(ratelimit.Limit) }), "rate_limit.requests", "requests and window are required"},
		{right(func(k *Key) { k.RateLimit = &ratelimit.Limit{Requests: 1, Window: caddy.Duration(-1)} }), "rate_limit.window", "must be 1ms to 8784h"},
		{right(func(k *Key) {
			k.RateLimit = &ratelimit.Limit{Requests: 1, Window: caddy.Duration(367 * 24 * time.Hour)}
		}), "rate_limit.window", "must be 1ms to 8784h"},
	} {
		keys := make(keySet)
		if err := keys.add(&Key{Name: "first", SHA256: keyHash("first")}, 1); err != nil {
			t.Fatal(err)
		}
		err := keys.add(&tc.key, 2)
		if err == nil || err.Field() != tc.field || !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%+v: got %v, want one about %s with %q", tc.key, err, tc.field, tc.wrong)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the key: %v", err)
		}
		if len(keys) != 1 {
			t.Errorf("%+v is in the keys all the same", tc.key)
		}
	}
}

func BenchmarkKeyring(b *testing.B) {
	for _, size := range []int{10, 10_000} {
		keys := make(keySet)
		for i := range size {
			if err := keys.add(&Key{Name: "consumer", SHA256: keyHash(fmt.Sprint("key-", i))}, i); err != nil {
				b.Fatal(err)
			}
		}
		for what, key := range map[string]string{"known": "key-7", "unknown": "3EA5x9WQYtVhKxNMvMJ3vnVuwrRPM9tYqB1hY0lVwM8"} {
			b.Run(fmt.Sprintf("%s/%d", what, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					keys.find(key)
				}
			})
		}
	}
}
