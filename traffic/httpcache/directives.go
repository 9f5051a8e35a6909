package httpcache

import (
	"strconv"
	"strings"
	"time"
)

// Directives are what the Cache-Control field of a request or of an answer says
// (RFC 9111, section 5.2). Which of them mean something depends on which it is.
type Directives struct {
	NoStore, NoTransform, OnlyIfCached          bool
	Public, MustRevalidate, ProxyRevalidate     bool
	MustUnderstand, Immutable, NoCache, Private bool
	NoCacheFields, PrivateFields                []string // to which these are limited; nil: they are not
	MaxAge, SMaxAge, MaxStale, MinFresh         Seconds
	StaleWhileRevalidate, StaleIfError          Seconds
}

// Seconds is the value of a directive, or Absent.
type Seconds int64

const (
	// Absent is the value of a directive that is not there.
	Absent Seconds = -1

	// mostSeconds is what a larger number counts as (RFC 9111, section 1.2.2).
	mostSeconds Seconds = 1 << 31
)

// Given reports whether the directive is there.
func (s Seconds) Given() bool { return s != Absent }

// Duration is the value as a duration; Absent is 0.
func (s Seconds) Duration() time.Duration { return time.Duration(max(s, 0)) * time.Second }

// ParseDirectives reads the lines of a Cache-Control field. It keeps what it
// understands of a malformed one: an error in one directive must not let an answer be
// stored that another one forbids to store. Of a directive with a number that is
// given twice, the first counts; what is not a number counts as 0.
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

// nextDirective takes the first directive off a line. Whatever is between it and the
// next comma and makes no sense is dropped.
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

// nextValue takes a token or a quoted string off a line. A quote that nothing closes
// is no quote: it shall not hide the directives after it.
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

// unquote reads a quoted string up to its closing quote.
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

// tokens are the bytes that names consist of (RFC 9110, section 5.6.2).
var tokens = func() (t [256]bool) {
	for c := byte('!'); c <= '~'; c++ {
		t[c] = strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) < 0
	}
	return t
}()

// add notes a directive. Arguments of those that take none do not matter.
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
		if !hasValue { // however stale
			value = strconv.FormatInt(int64(mostSeconds), 10)
		}
		d.MaxStale.set(value)
	case "stale-while-revalidate":
		d.StaleWhileRevalidate.set(value)
	case "stale-if-error":
		d.StaleIfError.set(value)
	}
}

// set takes over a number unless there is one.
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

// limit notes a directive that may be limited to some fields. Given twice, the one
// without limits counts.
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
