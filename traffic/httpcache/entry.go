package httpcache

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Entry is a stored answer. It is immutable, except for what the Store and Validate
// note about it.
type Entry struct {
	Freshness

	Status       int
	Body         []byte
	ETag         string
	LastModified time.Time // zero if it does not say
	Date         time.Time // when it was made, as it says itself

	fields []field
	drops  []string // fields that others have set and the origin's handler removed
	tags   []string
	values int // of all fields together

	// Guarded by the mutex of the store.
	home         *family
	variant      string
	newer, older *Entry
	size         int64

	visited     atomic.Bool  // since the hand came by
	validateAt  atomic.Int64 // before when it is not to be validated again, in Unix nanoseconds
	validatedBy atomic.Bool  // somebody validates it
}

// field is a field of a header.
type field struct {
	name   string
	values []string
	adds   bool // to what others have set
}

// Fields of an answer that are not stored (RFC 9111, section 3.1), or that the cache
// sets itself.
var notStored = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authenticate": true,
	"Proxy-Authentication-Info": true, "Proxy-Authorization": true,
	"Set-Cookie": true, "Set-Cookie2": true, "Age": true, "Content-Length": true,
	"X-Request-Id": true, // of another request
}

// Difference is what a handler has changed in the header of an answer, of which
// before is what others had set. The fields that it has set come out as an answer's
// header; adds tells which of them come on top of what was there, drops which are gone.
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

// NewEntry makes an entry of an answer whose body is still to come.
func NewEntry(f Freshness, a *Answer, adds map[string]bool, drops []string) *Entry {
	e := &Entry{Freshness: f, Status: a.Status, drops: slices.Clone(drops)}
	d := ParseDirectives(a.Header["Cache-Control"])
	var connection []string
	for _, line := range a.Header["Connection"] {
		connection = append(connection, strings.Split(line, ",")...)
	}
	length := 0
	for name, values := range a.Header {
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
	e.ETag = a.Header.Get("Etag")
	e.LastModified, _ = http.ParseTime(a.Header.Get("Last-Modified"))
	e.Date = a.date()
	e.tags = tagsOf(a.Header)
	return e
}

func namedIn(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(strings.TrimSpace(n), name) })
}

// own makes copies of the values of all fields, so that the entry keeps nothing else
// alive: one text, and one list.
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

// tagsOf are the names under which an answer wants to be purged.
func tagsOf(h http.Header) (tags []string) {
	for _, line := range h["Cache-Tag"] {
		tags = append(tags, strings.FieldsFunc(line, func(c rune) bool { return c == ',' || c == ' ' })...)
	}
	for _, line := range h["Surrogate-Key"] {
		tags = append(tags, strings.Fields(line)...)
	}
	return tags
}

// header is the stored header.
func (e *Entry) header() (h http.Header, adds map[string]bool) {
	h, adds = make(http.Header, len(e.fields)), make(map[string]bool)
	for _, f := range e.fields {
		h[f.name] = f.values
		adds[f.name] = f.adds
	}
	return h, adds
}

// WriteHeader puts the stored fields into the header of an answer. Of one that tells
// a client that it has the answer already, those that describe the body are left out.
// It returns an empty list that has room for the values of as many more fields.
func (e *Entry) WriteHeader(h http.Header, notModified bool, more int) (room []string) {
	for _, name := range e.drops {
		delete(h, name)
	}
	// Whoever handles the answer next may change values in place.
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

// Validators are what to ask the origin with whether the answer still holds.
func (e *Entry) Validators() (etag, lastModified string) {
	return e.ETag, e.Get("Last-Modified")
}

// Validated makes an entry of this one and of an answer that says that it still
// holds, 304 (RFC 9111, section 3.2). store is false if the result may not be stored,
// and keep if not even this entry may be any longer.
func (e *Entry) Validated(o *Options, q *Request, a *Answer) (fresh *Entry, store, keep bool) {
	header, adds := e.header()
	for name, values := range a.Header {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Range", "Content-Type", "Content-Md5", "Via":
			continue // servers say things about the body that is not there
		case "Etag":
			if e.ETag != "" { // it is the one that the origin was asked with
				continue
			}
		}
		header[name] = values
	}
	merged := &Answer{e.Status, header, a.Requested, a.Received}
	f, store, _ := o.Judge(q, merged)
	keep = store
	if !store {
		_, keep, _ = o.Judge(new(Request), merged)
	}
	fresh = NewEntry(f, merged, adds, e.drops)
	fresh.Body = e.Body
	return fresh, store, keep
}

// Differs reports whether the answer to a HEAD request shows that the entry is
// outdated (RFC 9111, section 4.3.5).
func (e *Entry) Differs(a *Answer, length int64) bool {
	if etag := a.Header.Get("Etag"); etag != "" || e.ETag != "" {
		return !SameETag(etag, e.ETag)
	}
	return a.Header.Get("Last-Modified") != e.Get("Last-Modified") || length >= 0 && length != int64(len(e.Body))
}

// TryValidate reports whether the caller is the one to validate the entry in the
// background. It must call EndValidation then.
func (e *Entry) TryValidate(now time.Time) bool {
	return now.UnixNano() >= e.validateAt.Load() && e.validatedBy.CompareAndSwap(false, true)
}

// EndValidation lets somebody validate the entry again, not before some time.
func (e *Entry) EndValidation(notBefore time.Time) {
	e.validateAt.Store(notBefore.UnixNano())
	e.validatedBy.Store(false)
}
