package httpcache

import (
	"encoding/binary"
	"math"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// varies reports whether an answer depends on more than the request's fields.
func varies(lines []string) bool {
	return slices.Contains(varyNames(lines), "*")
}

// varyNames lists the fields that a Vary field names, in order.
func varyNames(lines []string) (names []string) {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t")); name != "" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// SameVariant reports whether two requests are equal in the fields that an answer
// with this header depends on.
func SameVariant(answer, a, b http.Header) bool {
	for _, name := range varyNames(answer["Vary"]) {
		if !slices.Equal(a[name], b[name]) {
			return false
		}
	}
	return true
}

// appendVariant appends what a request has in fields that answers depend on. Equal
// texts mean that the requests are equal in them.
func appendVariant(text []byte, names []string, h http.Header) []byte {
	const absent = math.MaxUint32
	for _, name := range names {
		lines, ok := h[name]
		if !ok {
			text = binary.BigEndian.AppendUint32(text, absent)
			continue
		}
		at := len(text)
		text = binary.BigEndian.AppendUint32(text, 0)
		text = appendNormalized(text, name, lines)
		binary.BigEndian.PutUint32(text[at:], uint32(len(text)-at-4))
	}
	return text
}

// appendNormalized appends the value of a field in the form in which it is compared.
// Only differences without any meaning are taken away (RFC 9111, section 4.1): several
// lines, and in fields that are lists, spaces and, where it does not matter, case and
// order.
func appendNormalized(text []byte, name string, lines []string) []byte {
	value := ""
	if len(lines) > 0 {
		value = lines[0]
	}
	if len(lines) > 1 {
		value = strings.Join(lines, ", ")
	}
	value = strings.Trim(value, " \t")
	switch name {
	case "Accept-Encoding":
		return appendList(text, strings.ToLower(value), true)
	case "Accept-Language":
		return appendList(text, strings.ToLower(value), false)
	}
	return append(text, value...)
}

// appendList appends a list without spaces, with its items in the order of the
// alphabet if theirs does not matter.
func appendList(text []byte, list string, sorted bool) []byte {
	var few [16]string
	items := few[:0]
	for item := range strings.SplitSeq(list, ",") {
		items = append(items, strings.Trim(item, " \t"))
	}
	if sorted {
		slices.Sort(items)
	}
	for i, item := range items {
		if i > 0 {
			text = append(text, ',')
		}
		for _, c := range []byte(item) {
			if c != ' ' && c != '\t' {
				text = append(text, c)
			}
		}
	}
	return text
}
