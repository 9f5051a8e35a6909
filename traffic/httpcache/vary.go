package httpcache

import (
	"cmp"
	"encoding/binary"
	"math"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// varyNames returns the sorted field names in Vary.
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

// varyNamesField reports whether Vary names a field.
func varyNamesField(lines []string, name string) bool {
	for _, line := range lines {
		for one := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(one, " \t"), name) {
				return true
			}
		}
	}
	return false
}

// SameVariant reports whether two request headers are equal in the fields named in Vary
// of the response.
func SameVariant(response, a, b http.Header) bool {
	for _, name := range varyNames(response["Vary"]) {
		if !slices.Equal(a[name], b[name]) {
			return false
		}
	}
	return true
}

// Variant holds the values of the request fields that a response depends on.
type Variant struct {
	names      []string
	negotiated bool
	text       string
}

// VariantOf returns the values of a request that a response depends on. own reports
// whether only the options allow storing the response. The response then also depends on
// Origin if it sets Access-Control-Allow-Origin, and on all negotiated fields if it has
// no Vary.
func VariantOf(q *Request, response http.Header, own bool) Variant {
	v := variantOn(response["Vary"], response["Access-Control-Allow-Origin"], own)
	v.text = string(v.append(nil, q))
	return v
}

func variantOn(vary, allowedOrigin []string, own bool) Variant {
	v := Variant{names: varyNames(vary), negotiated: own && len(vary) == 0}
	if own && len(allowedOrigin) > 0 && allowedOrigin[0] != "*" && !slices.Contains(v.names, "Origin") {
		v.names = append(v.names, "Origin")
		slices.Sort(v.names)
	}
	return v
}

// Matches reports whether another request has the same values.
func (v *Variant) Matches(q *Request) bool {
	if len(v.names) == 0 && !v.negotiated {
		return true
	}
	var room [256]byte
	return string(v.append(room[:0], q)) == v.text
}

// Names returns the field names in Vary, and Origin if the response depends on it.
func (v *Variant) Names() []string { return v.names }

// Len returns the size of the values in bytes.
func (v *Variant) Len() int { return len(v.text) }

func (v *Variant) append(text []byte, q *Request) []byte {
	if v.negotiated {
		text = q.appendAll(text, Negotiated)
	}
	return q.appendVariant(text, v.names)
}

// AppendConstants appends the fields of class Constant to a key.
func (q *Request) AppendConstants(key []byte) []byte { return q.appendAll(key, Constant) }

// appendAll appends the names and values of all fields of a class in an unambiguous
// encoding.
func (q *Request) appendAll(text []byte, class Class) []byte {
	var few [24]string
	names := few[:0]
	for name, lines := range q.Header {
		if q.Class(name, lines) == class {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		text = append(binary.AppendUvarint(text, uint64(len(name))), name...)
		text = appendSized(text, name, q.Header[name])
	}
	return text
}

// appendVariant appends the values of the named fields in an unambiguous encoding.
func (q *Request) appendVariant(text []byte, names []string) []byte {
	const absent = math.MaxUint32
	for _, name := range names {
		lines, ok := q.sent(name)
		if !ok {
			text = binary.BigEndian.AppendUint32(text, absent)
			continue
		}
		text = appendSized(text, name, lines)
	}
	return text
}

// appendSized appends the length and the normalized value of a field.
func appendSized(text []byte, name string, lines []string) []byte {
	at := len(text)
	text = binary.BigEndian.AppendUint32(text, 0)
	text = appendNormalized(text, name, lines)
	binary.BigEndian.PutUint32(text[at:], uint32(len(text)-at-4))
	return text
}

// appendNormalized appends the normalized value of a field (RFC 9111, section 4.1). It
// joins lines. In Accept-Encoding and Accept-Language, it also removes white space and
// normalizes case and order where they have no meaning.
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
		return appendCodings(text, strings.ToLower(value))
	case "Accept-Language":
		return appendList(text, strings.ToLower(value))
	}
	return append(text, value...)
}

// appendList appends a list without white space.
func appendList(text []byte, list string) []byte {
	for i := range len(list) {
		if c := list[i]; c != ' ' && c != '\t' {
			text = append(text, c)
		}
	}
	return text
}

// coding is a content coding in Accept-Encoding, with its weight in thousandths.
type coding struct {
	name   string
	weight int
}

// codings maps the registered content codings (IANA HTTP Content Coding Registry),
// `identity` and `*` to their normalized names. Backends are expected to use no others.
var codings = map[string]string{
	"gzip": "gzip", "x-gzip": "gzip", "compress": "compress", "x-compress": "compress", "deflate": "deflate", "br": "br",
	"zstd": "zstd", "dcb": "dcb", "dcz": "dcz", "aes128gcm": "aes128gcm", "exi": "exi", "pack200-gzip": "pack200-gzip",
	"identity": "identity", "*": "*",
}

// appendCodings appends a list of content codings in sorted order. It removes duplicates
// and unregistered codings, and keeps malformed items and codings with weight 0.
func appendCodings(text []byte, list string) []byte {
	var few [16]coding
	all := few[:0]
	for item := range strings.SplitSeq(list, ",") {
		item = strings.Trim(item, " \t")
		name, parameter, weighted := strings.Cut(item, ";")
		name, known := codings[strings.TrimRight(name, " \t")]
		weight, ok := 1000, true
		if weighted {
			weight, ok = weightOf(strings.Trim(parameter, " \t"))
		}
		switch {
		case !ok:
			all = append(all, coding{item, 1000})
		case known:
			all = append(all, coding{name, weight})
		}
	}
	slices.SortFunc(all, func(a, b coding) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.weight, b.weight))
	})
	for i, c := range slices.Compact(all) {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, c.name...)
		if c.weight != 1000 {
			text = strconv.AppendInt(append(text, ";q="...), int64(c.weight), 10)
		}
	}
	return text
}

// weightOf parses a weight (RFC 9110, section 12.4.2), in thousandths.
func weightOf(parameter string) (thousandths int, ok bool) {
	text, ok := strings.CutPrefix(parameter, "q=")
	if !ok || len(text) == 0 || len(text) > 5 || text[0] != '0' && text[0] != '1' || len(text) > 1 && text[1] != '.' {
		return 0, false
	}
	weight, err := strconv.ParseFloat(text, 64)
	return int(math.Round(weight * 1000)), err == nil && weight <= 1
}
