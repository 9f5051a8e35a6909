package httpcache

import (
	"strconv"
	"strings"
	"time"
)

// Directives holds the Cache-Control directives of a request or a response (RFC 9111,
// section 5.2).
type Directives struct {
	NoStore, NoTransform, OnlyIfCached          bool
	Public, MustRevalidate, ProxyRevalidate     bool
	MustUnderstand, Immutable, NoCache, Private bool
	NoCacheFields, PrivateFields                []string // fields listed by no-cache and private; nil without a list
	MaxAge, SMaxAge, MaxStale, MinFresh         Seconds
	StaleWhileRevalidate, StaleIfError          Seconds
}

// Seconds is the value of a directive in seconds, or Absent.
type Seconds int64

const (
	// Absent is the value of a directive that is not present.
	Absent Seconds = -1

	// mostSeconds is the maximum value. Larger numbers are reduced to it (RFC 9111,
	// section 1.2.2).
	mostSeconds Seconds = 1 << 31
)

// Given reports whether the directive is present.
func (s Seconds) Given() bool { return s != Absent }

// Duration returns the value as a duration. It returns 0 for Absent.
func (s Seconds) Duration() time.Duration { return time.Duration(max(s, 0)) * time.Second }

// ParseDirectives parses the lines of a Cache-Control field. It skips malformed
// directives and continues after them, so that they cannot hide no-store. If a directive
// with a number is repeated, the first value applies. An invalid number is treated as 0.
func ParseDirectives(lines []string) Directives {
	d := Directives{
		MaxAge: Absent, SMaxAge: Absent, MaxStale: Absent, MinFresh: Absent,
		StaleWhileRevalidate: Absent, StaleIfError: Absent,
	}
	for _, line := range lines {
		for line != "" {
			var name, value string
			var hasValue bool
			name, value, hasValue, line = nextDirective(line)
			d.add(name, value, hasValue)
		}
	}
	return d
}

// nextDirective splits the first directive from a line. It skips malformed text up to the
// next comma.
func nextDirective(line string) (name, value string, hasValue bool, rest string) {
	for line != "" && (line[0] == ' ' || line[0] == '\t' || line[0] == ',') {
		line = line[1:]
	}
	end := 0
	for end < len(line) && isToken(line[end]) {
		end++
	}
	name, rest = line[:end], line[end:]
	if after := skipSpace(rest); after != "" && after[0] == '=' {
		hasValue = true
		value, rest = nextValue(skipSpace(after[1:]))
	}
	if at := strings.IndexByte(rest, ','); at >= 0 {
		rest = rest[at+1:]
	} else {
		rest = ""
	}
	return name, value, hasValue, rest
}

func skipSpace(text string) string {
	for text != "" && (text[0] == ' ' || text[0] == '\t') {
		text = text[1:]
	}
	return text
}

// nextValue splits a token or a quoted string from a line. An unclosed quote is part of a
// token, so that it cannot hide the directives after it.
func nextValue(line string) (value, rest string) {
	if strings.HasPrefix(line, `"`) {
		if value, rest, ok := unquote(line[1:]); ok {
			return value, rest
		}
	}
	end := strings.IndexByte(line, ',')
	if end < 0 {
		end = len(line)
	}
	return strings.TrimRight(line[:end], " \t"), line[end:]
}

// unquote splits a quoted string, whose opening quote was removed, from a line.
func unquote(line string) (value, rest string, ok bool) {
	if end := strings.IndexAny(line, `"\`); end >= 0 && line[end] == '"' {
		return line[:end], line[end+1:], true
	}
	var text strings.Builder
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			return text.String(), line[i+1:], true
		case c == '\\' && i+1 < len(line):
			i++
			text.WriteByte(line[i])
		default:
			text.WriteByte(c)
		}
	}
	return "", "", false
}

func isToken(c byte) bool { return tokens[c] }

// tokens contains the bytes that are allowed in tokens (RFC 9110, section 5.6.2).
var tokens = func() (t [256]bool) {
	for c := byte('!'); c <= '~'; c++ {
		t[c] = strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) < 0
	}
	return t
}()

// add stores a directive. It ignores the arguments of directives that have none.
func (d *Directives) add(name, value string, hasValue bool) {
	switch strings.ToLower(name) {
	case "no-store":
		d.NoStore = true
	case "no-transform":
		d.NoTransform = true
	case "only-if-cached":
		d.OnlyIfCached = true
	case "public":
		d.Public = true
	case "must-revalidate":
		d.MustRevalidate = true
	case "proxy-revalidate":
		d.ProxyRevalidate = true
	case "must-understand":
		d.MustUnderstand = true
	case "immutable":
		d.Immutable = true
	case "no-cache":
		limit(&d.NoCache, &d.NoCacheFields, value)
	case "private":
		limit(&d.Private, &d.PrivateFields, value)
	case "max-age":
		d.MaxAge.set(value)
	case "s-maxage":
		d.SMaxAge.set(value)
	case "min-fresh":
		d.MinFresh.set(value)
	case "max-stale":
		if !hasValue { // without a value, any staleness is accepted
			value = strconv.FormatInt(int64(mostSeconds), 10)
		}
		d.MaxStale.set(value)
	case "stale-while-revalidate":
		d.StaleWhileRevalidate.set(value)
	case "stale-if-error":
		d.StaleIfError.set(value)
	}
}

// set parses and stores a number. It keeps the value of an earlier occurrence.
func (s *Seconds) set(value string) {
	if *s != Absent {
		return
	}
	*s = 0
	if value == "" {
		return
	}
	var n Seconds
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return
		}
		n = min(n*10+Seconds(value[i]-'0'), mostSeconds)
	}
	*s = n
}

// limit stores a directive whose value may list fields. An occurrence without a list
// applies to all fields.
func limit(given *bool, fields *[]string, value string) {
	if *given && *fields == nil {
		return
	}
	*given = true
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.Trim(name, " \t"); name != "" {
			names = append(names, name)
		}
	}
	if names == nil {
		*fields = nil
		return
	}
	*fields = append(*fields, names...)
}
