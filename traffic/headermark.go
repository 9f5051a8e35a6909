package traffic

import (
	"net/http"
	"slices"
)

// headerMark is how the header of an answer was before other handlers got to see
// it: what it has then is from them, or from further out.
type headerMark struct {
	few  [6]field // so that there is hardly ever anything to allocate
	more []field
	n    int
}

func (m *headerMark) set(header http.Header) {
	m.n, m.more = 0, nil
	for name, values := range header {
		if m.n < len(m.few) {
			m.few[m.n] = field{name, values}
		} else {
			m.more = append(m.more, field{name, values})
		}
		m.n++
	}
}

func (m *headerMark) each(do func(f field)) {
	for _, f := range m.few[:min(m.n, len(m.few))] {
		do(f)
	}
	for _, f := range m.more {
		do(f)
	}
}

func (m *headerMark) get(name string) (values []string, ok bool) {
	m.each(func(f field) {
		if f.name == name {
			values, ok = f.values, true
		}
	})
	return values, ok
}

// restore makes a header again what it was.
func (m *headerMark) restore(header http.Header) {
	clear(header)
	m.each(func(f field) { header[f.name] = f.values })
}

// headerChange is what handlers have done to a header, so that it can be done to
// another one.
type headerChange struct {
	set   []field // in place of what was there
	added []field // to what was there
	gone  []string
}

// change finds out what was done to a header since the mark.
func (m *headerMark) change(header http.Header) (c headerChange) {
	for name, values := range header {
		before, ok := m.get(name)
		switch n := len(before); {
		case ok && slices.Equal(before, values):
		case ok && len(values) > n && slices.Equal(before, values[:n]):
			c.added = append(c.added, field{name, slices.Clone(values[n:])})
		default:
			c.set = append(c.set, field{name, slices.Clone(values)})
		}
	}
	m.each(func(f field) {
		if _, ok := header[f.name]; !ok {
			c.gone = append(c.gone, f.name)
		}
	})
	return c
}

// apply does the same to another header. It keeps no reference to its own values.
func (c *headerChange) apply(header http.Header) {
	for _, name := range c.gone {
		delete(header, name)
	}
	for _, f := range c.set {
		header[f.name] = slices.Clone(f.values)
	}
	for _, f := range c.added {
		header[f.name] = append(slices.Clip(header[f.name]), f.values...)
	}
}
