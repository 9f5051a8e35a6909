package httpcache

import (
	"encoding/binary"
	"net/url"
	"strings"
)

// Key is the key of stored responses: a URL followed by data that the caller appends.
type Key []byte

const keyHead = 4 // size of the URL's length, in bytes

// AppendKey starts a key with a URL. The caller appends the remaining data.
func AppendKey(key Key, scheme, host, path, query string) Key {
	key = append(key[:0], 0, 0, 0, 0)
	key = AppendURL(key, scheme, host, path, query)
	binary.BigEndian.PutUint32(key, uint32(len(key)-keyHead))
	return key
}

// Clone returns a copy of the key.
func (k Key) Clone() Key { return append(Key(nil), k...) }

// AppendURL appends a normalized URL. The host is in lower case, without the default port
// and without a trailing dot.
func AppendURL(text []byte, scheme, host, path, query string) []byte {
	text = append(text, scheme...)
	text = append(text, "://"...)
	text = appendHost(text, scheme, host)
	if path == "" {
		path = "/"
	}
	text = append(text, path...)
	if query != "" {
		text = append(text, '?')
		text = append(text, query...)
	}
	return text
}

func appendHost(text []byte, scheme, host string) []byte {
	name, port := host, ""
	if at := strings.LastIndexByte(host, ':'); at >= 0 && strings.IndexByte(host[at:], ']') < 0 {
		name, port = host[:at], host[at+1:]
	}
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	text = append(text, strings.ToLower(strings.TrimSuffix(name, "."))...)
	if port != "" {
		text = append(text, ':')
		text = append(text, port...)
	}
	return text
}

// NormalizeURL normalizes an absolute URL like AppendURL. It returns false if text is not
// an absolute URL.
func NormalizeURL(text string) (string, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return "", false
	}
	return string(AppendURL(nil, strings.ToLower(u.Scheme), u.Host, u.EscapedPath(), u.RawQuery)), true
}

// urlOf returns the URL of a key.
func urlOf(key string) string {
	return key[keyHead : keyHead+int(binary.BigEndian.Uint32([]byte(key[:keyHead])))]
}

// pathOf returns the path and the query of a URL.
func pathOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	if at := strings.IndexByte(rest, '/'); at >= 0 {
		return rest[at:]
	}
	return ""
}

// SameOrigin resolves a reference relative to base and normalizes it. It returns "" if
// the result has a different origin.
func SameOrigin(base, reference string) string {
	from, err := url.Parse(base)
	if err != nil {
		return ""
	}
	to, err := from.Parse(reference)
	if err != nil {
		return ""
	}
	text, ok := NormalizeURL(to.String())
	if !ok || !strings.HasPrefix(text, strings.TrimSuffix(base, pathOf(base))+"/") {
		return ""
	}
	return text
}
