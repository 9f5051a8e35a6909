package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Entry is a stored response. It is immutable, except for the fields of the store and of
// background validations.
type Entry struct {
	Freshness

	Status       int
	Body         []byte
	ETag         string
	LastModified time.Time // zero if absent or invalid
	Date         time.Time // value of Date, or the time of receipt

	fields []field
	drops  []string // fields of outer handlers that inner handlers removed
	tags   []string
	values int // number of values in fields

	// Guarded by the mutex of the store.
	owner        *variants // nil if the entry is not stored
	variant      string
	newer, older *Entry
	size         int64

	visited    atomic.Bool  // returned by Get since the SIEVE hand passed
	validateAt atomic.Int64 // earliest time of the next background validation, in Unix nanoseconds
	validating atomic.Bool  // a background validation is running
}

// field is a header field.
type field struct {
	name   string
	values []string
	adds   bool // the values are appended to the values of outer handlers
}

// notStored lists response fields that must not be stored (RFC 9111, section 3.1), that
// belong to a single client, or that the cache sets itself.
var notStored = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authenticate": true,
	"Proxy-Authentication-Info": true, "Proxy-Authorization": true,
	"Set-Cookie": true, "Set-Cookie2": true, "Age": true, "Content-Length": true,
	"X-Request-Id": true, // belongs to a single request
}

// Difference compares a response header before and after a handler. own contains the
// fields that the handler set. adds contains the names of own fields whose values were
// appended to existing values. drops contains the names of removed fields.
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

// own copies all field values into a single string and slice. Otherwise the entry would
// keep the memory of the original header reachable.
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

// tagsOf returns the purge tags in Cache-Tag and Surrogate-Key.
func tagsOf(h http.Header) (tags []string) {
	for _, line := range h["Cache-Tag"] {
		tags = append(tags, strings.FieldsFunc(line, func(c rune) bool { return c == ',' || c == ' ' })...)
	}
	for _, line := range h["Surrogate-Key"] {
		tags = append(tags, strings.Fields(line)...)
	}
	return tags
}

// header returns the stored header, and for each field whether its values are appended.
func (e *Entry) header() (h http.Header, adds map[string]bool) {
	h, adds = make(http.Header, len(e.fields)), make(map[string]bool)
	for _, f := range e.fields {
		h[f.name] = f.values
		adds[f.name] = f.adds
	}
	return h, adds
}

// WriteHeader writes the stored fields to a response header. If notModified is set, it
// omits fields that describe the body. It returns an empty slice with capacity for more
// values.
func (e *Entry) WriteHeader(h http.Header, notModified bool, more int) (room []string) {
	for _, name := range e.drops {
		delete(h, name)
	}
	// Copy the values because outer handlers may change them in place.
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

// Validated returns the entry updated by a 304 response (RFC 9111, section 3.2). store is
// false if the result must not be stored. keep is false if this entry must be removed.
func (e *Entry) Validated(o *Options, q *Request, r *Response) (fresh *Entry, store, keep bool) {
	header, adds := e.header()
	for name, values := range r.Header {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Range", "Content-Type", "Content-Md5", "Via":
			continue // servers may describe the empty body of the 304
		case "Etag":
			if e.ETag != "" { // matches the If-None-Match that was sent
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
// (RFC 9111, section 4.3.5). length is its Content-Length, or negative if unknown.
func (e *Entry) Differs(r *Response, length int64) bool {
	if etag := r.Header.Get("Etag"); etag != "" || e.ETag != "" {
		return !SameETag(etag, e.ETag)
	}
	return r.Header.Get("Last-Modified") != e.Get("Last-Modified") || length >= 0 && length != int64(len(e.Body))
}

// TryValidate reports whether the caller must validate the entry in the background. If it
// returns true, the caller must call EndValidation.
func (e *Entry) TryValidate(now time.Time) bool {
	return now.UnixNano() >= e.validateAt.Load() && e.validating.CompareAndSwap(false, true)
}

// EndValidation ends a background validation and allows the next one from notBefore on.
func (e *Entry) EndValidation(notBefore time.Time) {
	e.validateAt.Store(notBefore.UnixNano())
	e.validating.Store(false)
}
