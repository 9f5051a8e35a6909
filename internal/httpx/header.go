// Package httpx contains HTTP helpers for several policies: header snapshots, range
// requests, and request bodies that can be sent again.
package httpx

import (
	"net/http"
	"slices"
)

// Field is a header field.
type Field struct {
	Name   string
	Values []string
}

// HeaderMark is a snapshot of a response header, taken before the next handler runs. It
// detects that handler's changes.
type HeaderMark struct {
	few  [6]Field // avoids an allocation for most headers
	more []Field
	n    int
}

// Set takes a snapshot of the header. It keeps references to the values.
func (m *HeaderMark) Set(header http.Header) {
	m.n, m.more = 0, nil
	for name, values := range header {
		if m.n < len(m.few) {
			m.few[m.n] = Field{name, values}
		} else {
			m.more = append(m.more, Field{name, values})
		}
		m.n++
	}
}

func (m *HeaderMark) each(do func(f Field)) {
	for _, f := range m.few[:min(m.n, len(m.few))] {
		do(f)
	}
	for _, f := range m.more {
		do(f)
	}
}

func (m *HeaderMark) get(name string) (values []string, ok bool) {
	m.each(func(f Field) {
		if f.Name == name {
			values, ok = f.Values, true
		}
	})
	return values, ok
}

// Restore resets a header to the snapshot.
func (m *HeaderMark) Restore(header http.Header) {
	clear(header)
	m.each(func(f Field) { header[f.Name] = f.Values })
}

// HeaderChange is the difference between two states of a header. It can be applied to
// another header.
type HeaderChange struct {
	Set     []Field // replace the values of their fields
	Added   []Field // append to the values of their fields
	Removed []string
}

// Change returns the difference between the snapshot and a header.
func (m *HeaderMark) Change(header http.Header) (c HeaderChange) {
	for name, values := range header {
		before, ok := m.get(name)
		switch n := len(before); {
		case ok && slices.Equal(before, values):
		case ok && len(values) > n && slices.Equal(before, values[:n]):
			c.Added = append(c.Added, Field{name, slices.Clone(values[n:])})
		default:
			c.Set = append(c.Set, Field{name, slices.Clone(values)})
		}
	}
	m.each(func(f Field) {
		if _, ok := header[f.Name]; !ok {
			c.Removed = append(c.Removed, f.Name)
		}
	})
	return c
}

// Apply applies the change to another header. It copies the values.
func (c *HeaderChange) Apply(header http.Header) {
	for _, name := range c.Removed {
		delete(header, name)
	}
	for _, f := range c.Set {
		header[f.Name] = slices.Clone(f.Values)
	}
	for _, f := range c.Added {
		header[f.Name] = append(slices.Clip(header[f.Name]), f.Values...)
	}
}
