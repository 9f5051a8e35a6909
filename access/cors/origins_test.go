package cors

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestParseOrigins(t *testing.T) {
	for text, want := range map[string]string{
		"https://app.example.com":     "https://app.example.com",
		"HTTPS://App.Example.COM":     "https://app.example.com",
		"https://app.example.com:443": "https://app.example.com",
		"http://app.example.com:80":   "http://app.example.com",
		"http://app.example.com:443":  "http://app.example.com:443",
		"http://localhost:8080":       "http://localhost:8080",
		"http://127.0.0.1:3000":       "http://127.0.0.1:3000",
		"http://[::1]:3000":           "http://[::1]:3000",
		"http://[::1]":                "http://[::1]",
		"https://*.example.com":       "https://*.example.com",
		"https://*.example.com:8443":  "https://*.example.com:8443",
		"http://*.localhost:8080":     "http://*.localhost:8080",
		"capacitor://localhost":       "capacitor://localhost",
		"chrome-extension://abcdefgh": "chrome-extension://abcdefgh",
		"https://a_b.example.com":     "https://a_b.example.com",
	} {
		if got, err := normalOrigin(text); err != nil || got != want {
			t.Errorf("%s: got %q and %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                           `invalid origin "": must have a scheme, such as https://app.example.com`,
		"app.example.com":            `must have a scheme`,
		"*.example.com":              `must have a scheme`,
		"://example.com":             `must have a scheme`,
		"1http://example.com":        `must have a scheme`,
		"https://app.example.com/":   `must consist of scheme, host and port: use "https://app.example.com"`,
		"https://example.com/path":   `use "https://example.com"`,
		"https://example.com?a":      `use "https://example.com"`,
		"https://example.com#a":      `use "https://example.com"`,
		"https://user@example.com":   `must be an origin such as https://app.example.com`,
		"https://":                   `must be an origin such as https://app.example.com`,
		"https://:8080":              `must be an origin such as https://app.example.com`,
		"https://example.com:":       `must be an origin such as https://app.example.com`,
		"https://example.com:https":  `must be an origin such as https://app.example.com`,
		"https://example.com:0443":   `must be an origin such as https://app.example.com`,
		"https://example.com:123456": `must be an origin such as https://app.example.com`,
		"https://example.com.":       `must be an origin such as https://app.example.com`,
		"https://.example.com":       `must be an origin such as https://app.example.com`,
		"https://a..example.com":     `must be an origin such as https://app.example.com`,
		"https://bücher.example":     `Punycode`,
		"https://exa mple.com":       `must be an origin such as https://app.example.com`,
		"https://[::1":               `must be an origin such as https://app.example.com`,
		"https://[]":                 `must be an origin such as https://app.example.com`,
		"https://*":                  `a wildcard must be the first label`,
		"https://a.*.example.com":    `a wildcard must be the first label`,
		"https://*example.com":       `a wildcard must be the first label`,
		"https://*.*.example.com":    `a wildcard must be the first label`,
		"https://example.com:*":      `must be an origin such as https://app.example.com`,
		"https://*.com":              `top-level domain`,
		"https://*.com:8443":         `top-level domain`,
		"https://*.":                 `must be an origin such as https://app.example.com`,
		"*://example.com":            `must have a scheme`,
		"~":                          `invalid origin "~": must be followed by a regular expression`,
		"~(":                         `invalid regular expression`,
		"~a)|(b":                     `invalid regular expression`,
	} {
		if _, i, err := parseOrigins([]string{"https://first.example", text}); err == nil || i != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v at %d, want %q", text, err, i, want)
		}
	}
	if _, i, err := parseOrigins([]string{"https://a.example", "*"}); err == nil || i != 1 || !strings.Contains(err.Error(), "remove * or the others") {
		t.Errorf("* beside others: %v at %d", err, i)
	}
}

func TestOriginsAllow(t *testing.T) {
	for _, tc := range []struct {
		list, yes, no string
	}{
		{
			"https://app.example.com",
			"https://app.example.com",
			"http://app.example.com https://app.example.com:8443 https://app.example.com. https://example.com https://x.app.example.com " +
				"https://app.example.com.evil.example https://app.example.comx xhttps://app.example.com https://app.example.com/ null * " +
				"https://APP.example.com https://app.example.com:443",
		},
		{
			"https://*.example.com",
			"https://a.example.com https://a.b.example.com https://xn--bcher-kva.example.com https://a-b_c.example.com",
			"https://example.com http://a.example.com https://a.example.com:8443 https://.example.com https://a..example.com " +
				"https://evil.example/.example.com https://evil.example?.example.com https://evil.example#.example.com " +
				"https://evil@a.example.com https://evil.example:80.example.com https://aexample.com https://a.example.com.evil.example " +
				"https://[.example.com https://%2e.example.com https://*.example.com https://-\x00.example.com",
		},
		{"http://*.localhost:8080", "http://a.localhost:8080", "http://a.localhost http://localhost:8080"},
		{
			`~^https://app-\d+\.example\.com$`,
			"https://app-1.example.com https://app-42.example.com",
			"https://app-.example.com https://app-1xexample.com https://app-1.example.com.evil.example xhttps://app-1.example.com",
		},
		{ // unanchored patterns with alternatives match only the whole origin
			`~https://a\.example|https://b\.example`,
			"https://a.example https://b.example",
			"https://a.example.evil.example evil://https://b.example https://a.example\nx",
		},
		{"~(?m)^https://a$", "https://a", "https://a\nhttps://evil.example https://evil.example\nhttps://a"},
		{"null", "null", "NULL nul https://null *"},
		{"*", "https://any.example null http://localhost:1", ""},
		{"https://a.example http://b.example:81 https://*.c.example", "https://a.example http://b.example:81 https://x.c.example", "https://b.example:81 null"},
	} {
		o, _, err := parseOrigins(strings.Fields(tc.list))
		if err != nil {
			t.Errorf("%s: %v", tc.list, err)
			continue
		}
		for origin := range strings.SplitSeq(tc.yes, " ") {
			if !o.allow(origin) {
				t.Errorf("%s does not allow %q", tc.list, origin)
			}
		}
		for origin := range strings.SplitSeq(tc.no, " ") {
			if origin != "" && o.allow(origin) {
				t.Errorf("%s allows %q", tc.list, origin)
			}
		}
	}
}

func TestUnboundedOrigins(t *testing.T) {
	for list, want := range map[string]bool{
		"*": true, "~.*": true, `~https?://.+`: true, "~^https://": false, "~": false,
		"null": true, "~null|https://a\\.example": true, "https://*.example.com": false, `~https://[a-z]+\.example\.com`: false,
	} {
		if o, _, err := parseOrigins([]string{list}); err == nil && o.unbounded() != want {
			t.Errorf("%s: unbounded is %v", list, !want)
		}
	}
}

// allowedNaively is a simple reference implementation of origin matching.
func allowedNaively(pattern, origin string) bool {
	if pattern == "*" || pattern == origin {
		return true
	}
	if text, ok := strings.CutPrefix(pattern, "~"); ok {
		found := regexp.MustCompile(text).FindString(origin)
		return regexp.MustCompile("^("+text+")$").MatchString(origin) || found == origin
	}
	want, err := url.Parse(pattern)
	if err != nil || !strings.Contains(pattern, "*") {
		return false
	}
	got, err := url.Parse(origin)
	if err != nil || got.User != nil || got.Path != "" || got.RawQuery != "" || got.ForceQuery || got.Fragment != "" || got.Opaque != "" {
		return false
	}
	return got.Scheme == want.Scheme && got.Port() == want.Port() &&
		strings.HasSuffix(got.Hostname(), strings.TrimPrefix(want.Hostname(), "*")) && got.Hostname() != strings.TrimPrefix(want.Hostname(), "*")
}

// FuzzOrigins checks that every allowed origin is also allowed by allowedNaively.
func FuzzOrigins(f *testing.F) {
	for _, pattern := range []string{"https://app.example.com", "https://*.example.com", "http://*.localhost:8080", `~https://[a-z]+\.example\.com`, "null", "*"} {
		for _, origin := range []string{
			"https://app.example.com", "https://a.b.example.com", "https://evil.example/.example.com", "https://evil@x.example.com",
			"http://a.localhost:8080", "null", "https://example.com", "https://a.example.com:443", "https://evil.example\\.example.com",
		} {
			f.Add(pattern, origin)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, origin string) {
		o, _, err := parseOrigins([]string{pattern})
		if err != nil {
			return
		}
		normal := pattern
		if pattern != "*" && pattern != "null" && !strings.HasPrefix(pattern, "~") {
			if normal, err = normalOrigin(pattern); err != nil {
				t.Fatalf("%q is accepted, but not an origin: %v", pattern, err)
			}
			if again, err := normalOrigin(normal); err != nil || again != normal {
				t.Errorf("%q becomes %q, which becomes %q, %v", pattern, normal, again, err)
			}
			if !strings.Contains(normal, "*") && !o.allow(normal) {
				t.Errorf("%q does not allow itself, %q", pattern, normal)
			}
		}
		if o.allow(origin) && !allowedNaively(normal, origin) {
			t.Errorf("%q allows %q", pattern, origin)
		}
	})
}
