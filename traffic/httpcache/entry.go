package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Entry is a stored response. It is immutable, except for the fields of the store and those
// of validations.
type Entry struct {
	Freshness

	Status       int
	Body         []byte
	ETag         string
	LastModified time.Time // zero if absent
	Date         time.Time // the field Date, or when the response was received

	fields []field
	drops  []string // fields of outer handlers that the origin's handler removed
	tags   []string
	values int // the number of values of all fields

	// Guarded by the mutex of the store.
	owner        *variants // nil if it is not stored
	variant      string
	newer, older *Entry
	size         int64

	visited    atomic.Bool  // since the hand passed it
	validateAt atomic.Int64 // the earliest time of the next validation, in Unix nanoseconds
	validating atomic.Bool  // a request validates it
}

// field is a header field.
type field struct {
	name   string
	values []string
	adds   bool // adds to the values of outer handlers
}

// notStored are fields of responses that are not stored (RFC 9111, section 3.1), or that
// the cache sets itself.
var notStored = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authenticate": true,
	"Proxy-Authentication-Info": true, "Proxy-Authorization": true,
	"Set-Cookie": true, "Set-Cookie2": true, "Age": true, "Content-Length": true,
	"X-Request-Id": true, // of another request
}

// Difference returns what a handler has changed in a response header that was before. own
// has the fields that it has set, adds those of them that add to existing values, and drops
// the fields that it has removed.
func Difference(before, after http.Header) (own http.Header, adds map[string]bool, drops []string) {
	own = make(http.Header, len(after))
	for name, values := range after {
		old := before[name]
		switch {
		case len(old) == 0:
			own[name] = values
		case len(values) >= len(old) && slices.Equal(values[:len(old)], old):
			if len(values) > len(old) {
				own[name] = values[len(old):]
				if adds == nil {
					adds = make(map[string]bool)
				}
				adds[name] = true
			}
		default:
			own[name] = values
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			drops = append(drops, name)
		}
	}
	return own, adds, drops
}

// NewEntry returns an entry without a body.
func NewEntry(f Freshness, r *Response, adds map[string]bool, drops []string) *Entry {
	e := &Entry{Freshness: f, Status: r.Status, drops: slices.Clone(drops)}
	d := ParseDirectives(r.Header["Cache-Control"])
	var connection []string
	for _, line := range r.Header["Connection"] {
		connection = append(connection, strings.Split(line, ",")...)
	}
	length := 0
	for name, values := range r.Header {
		if len(values) == 0 || notStored[name] || named(d.PrivateFields, name) || named(d.NoCacheFields, name) || namedIn(connection, name) ||
			strings.HasPrefix(name, http.TrailerPrefix) {
			continue
		}
		e.fields = append(e.fields, field{name, values, adds[name]})
		e.values += len(values)
		for _, value := range values {
			length += len(value)
		}
	}
	slices.SortFunc(e.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	e.own(length)
	e.ETag = r.Header.Get("Etag")
	e.LastModified, _ = http.ParseTime(r.Header.Get("Last-Modified"))
	e.Date = r.date()
	e.tags = tagsOf(r.Header)
	return e
}

func namedIn(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.TrimSpace(n), name) })
}

// own copies the values of all fields into one string and one list, so that the entry
// keeps no other memory alive.
func (e *Entry) own(length int) {
	var all strings.Builder
	all.Grow(length)
	for _, f := range e.fields {
		for _, value := range f.values {
			all.WriteString(value)
		}
	}
	text, list := all.String(), make([]string, 0, e.values)
	for i, f := range e.fields {
		from := len(list)
		for _, value := range f.values {
			list = append(list, text[:len(value)])
			text = text[len(value):]
		}
		e.fields[i].values = list[from:len(list):len(list)]
	}
}

// tagsOf returns the tags of a response, by which it can be purged.
func tagsOf(h http.Header) (tags []string) {
	for _, line := range h["Cache-Tag"] {
		tags = append(tags, strings.FieldsFunc(line, func(c rune) bool { return c == ',' || c == ' ' })...)
	}
	for _, line := range h["Surrogate-Key"] {
		tags = append(tags, strings.Fields(line)...)
	}
	return tags
}

// header returns the stored header.
func (e *Entry) header() (h http.Header, adds map[string]bool) {
	h, adds = make(http.Header, len(e.fields)), make(map[string]bool)
	for _, f := range e.fields {
		h[f.name] = f.values
		adds[f.name] = f.adds
	}
	return h, adds
}

// WriteHeader puts the stored fields into a response header. For a response of 304, it omits
// those that describe the body. It returns an empty list with the capacity for more values.
func (e *Entry) WriteHeader(h http.Header, notModified bool, more int) (room []string) {
	for _, name := range e.drops {
		delete(h, name)
	}
	// Copied, since outer handlers may change values in place.
	list := make([]string, 0, e.values+more)
	for i := range e.fields {
		f := &e.fields[i]
		if notModified && strings.HasPrefix(f.name, "Content-") && f.name != "Content-Location" {
			continue
		}
		from := len(list)
		list = append(list, f.values...)
		if values := list[from:len(list):len(list)]; f.adds && len(h[f.name]) > 0 {
			h[f.name] = append(h[f.name], values...)
		} else {
			h[f.name] = values
		}
	}
	return list[len(list):]
}

// Get returns the first value of a stored field.
func (e *Entry) Get(name string) string {
	for i := range e.fields {
		if e.fields[i].name == name {
			return e.fields[i].values[0]
		}
	}
	return ""
}

// Values returns the values of a stored field.
func (e *Entry) Values(name string) []string {
	for i := range e.fields {
		if e.fields[i].name == name {
			return e.fields[i].values
		}
	}
	return nil
}

// Validators returns the validators for a conditional request to the origin.
func (e *Entry) Validators() (etag, lastModified string) {
	return e.ETag, e.Get("Last-Modified")
}

// Validated returns the entry updated by a response of 304 (RFC 9111, section 3.2). store is
// false if the result may not be stored, and keep is false if this entry may not be kept.
func (e *Entry) Validated(o *Options, q *Request, r *Response) (fresh *Entry, store, keep bool) {
	header, adds := e.header()
	for name, values := range r.Header {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Range", "Content-Type", "Content-Md5", "Via":
			continue // servers describe the body that is absent
		case "Etag":
			if e.ETag != "" { // the request had this one
				continue
			}
		}
		header[name] = values
	}
	merged := &Response{e.Status, header, r.Requested, r.Received}
	f, store, _ := o.Judge(q, merged)
	keep = store
	if !store {
		_, keep, _ = o.Judge(new(Request), merged)
	}
	fresh = NewEntry(f, merged, adds, e.drops)
	fresh.Body = e.Body
	return fresh, store, keep
}

// Differs reports whether the response to a HEAD request shows that the entry is outdated
// (RFC 9111, section 4.3.5).
func (e *Entry) Differs(r *Response, length int64) bool {
	if etag := r.Header.Get("Etag"); etag != "" || e.ETag != "" {
		return !SameETag(etag, e.ETag)
	}
	return r.Header.Get("Last-Modified") != e.Get("Last-Modified") || length >= 0 && length != int64(len(e.Body))
}

// TryValidate reports whether the caller has to validate the entry in the background. It
// must call EndValidation then.
func (e *Entry) TryValidate(now time.Time) bool {
	return now.UnixNano() >= e.validateAt.Load() && e.validating.CompareAndSwap(false, true)
}

// EndValidation allows the next validation from notBefore on.
func (e *Entry) EndValidation(notBefore time.Time) {
	e.validateAt.Store(notBefore.UnixNano())
	e.validating.Store(false)
}
