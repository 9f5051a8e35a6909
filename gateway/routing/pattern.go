package routing

import (
	"fmt"
	"slices"
	"strings"
)

// Pattern is a path pattern: `/users/:id/profile`, `/files/*`. A segment `:name`
// stands for any one segment that is not empty, and gives it a name; a segment
// `*` does so without a name, except at the end, where it stands for whatever
// follows the slash before it, be it nothing or several segments. All else stands
// for itself. A pattern takes the whole path, a trailing slash included.
type Pattern []segment

type segment struct {
	kind segmentKind
	text string // what it says, or its name
}

type segmentKind uint8

const (
	segmentText  segmentKind = iota
	segmentParam             // :name
	segmentAny               // * before the end
	segmentRest              // * at the end
)

// ParsePattern parses a path that begins with a slash. It returns nil if there is
// no variable segment in it: then it is a prefix.
func ParsePattern(path string) (Pattern, error) {
	var p Pattern
	variable := false
	texts := strings.Split(path[1:], "/")
	for i, text := range texts {
		s := segment{text: text}
		switch {
		case text == "*" && i == len(texts)-1:
			s.kind = segmentRest
		case text == "*":
			s.kind = segmentAny
		case strings.Contains(text, "*"):
			return nil, fmt.Errorf("has a wildcard that is not a whole segment: write /* for whatever follows a slash")
		case strings.HasPrefix(text, ":"):
			s = segment{kind: segmentParam, text: text[1:]}
			if !isName(s.text) {
				return nil, fmt.Errorf("has the parameter %q: name it with letters, digits and underscores, as in /:id", text)
			}
			if slices.Contains(p, s) {
				return nil, fmt.Errorf("has the parameter %q twice: give each a name of its own", text)
			}
		}
		variable = variable || s.kind != segmentText
		p = append(p, s)
	}
	if !variable {
		return nil, nil
	}
	return p, nil
}

func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_'
	})
}

// shape is equal for patterns that take the same paths.
func (p Pattern) shape() string {
	var b strings.Builder
	for _, s := range p {
		b.WriteByte('/')
		switch s.kind {
		case segmentText:
			b.WriteString(s.text)
		case segmentParam:
			b.WriteByte(':')
		default:
			b.WriteByte('*')
		}
	}
	return b.String()
}

// HasRest reports whether the pattern ends in a wildcard.
func (p Pattern) HasRest() bool { return len(p) > 0 && p[len(p)-1].kind == segmentRest }

// Names are what the pattern's variable segments are called.
func (p Pattern) Names() (names []string) {
	for _, s := range p {
		switch s.kind {
		case segmentParam:
			names = append(names, s.text)
		case segmentRest:
			names = append(names, "*")
		}
	}
	return names
}

// Param returns what a named segment stands for in a path that the pattern takes;
// `*` names what the last segment stands for. It is empty if there is none.
func (p Pattern) Param(path, name string) string {
	for _, s := range p {
		path = path[1:] // the slash
		text, _, _ := strings.Cut(path, "/")
		switch {
		case s.kind == segmentRest && name == "*":
			return path
		case s.kind == segmentParam && s.text == name:
			return text
		}
		path = path[len(text):]
	}
	return ""
}

// fixed returns how much of a path that the pattern takes comes before what its
// last segment, a `*`, stands for: all up to the slash.
func (p Pattern) fixed(path string) int {
	at := 0
	for range p[:len(p)-1] {
		at++ // the slash
		if end := strings.IndexByte(path[at:], '/'); end >= 0 {
			at += end
		}
	}
	return at
}

// patternNode is a node of the tree of all patterns, in which every level is a
// segment.
type patternNode struct {
	text  string // most nodes lead to one text at the most
	next  *patternNode
	texts map[string]*patternNode // the others
	param *patternNode
	any   *patternNode
	rest  place // of the routes whose pattern goes on with a * to the end
	here  place // of those whose pattern ends
}

// interner has one copy of each text: what many patterns have in common is then
// in the processor's cache.
type interner map[string]string

func (in interner) intern(text string) string {
	if own, ok := in[text]; ok {
		return own
	}
	own := strings.Clone(text)
	in[own] = own
	return own
}

// after returns the node that a text leads to, or nil.
func (n *patternNode) after(text string) *patternNode {
	if n.next != nil && n.text == text {
		return n.next
	}
	return n.texts[text]
}

// lead returns the node that a text leads to. It is made if need be.
func (n *patternNode) lead(text string, texts interner) *patternNode {
	if next := n.after(text); next != nil {
		return next
	}
	text = texts.intern(text)
	next := new(patternNode)
	switch {
	case n.next == nil:
		n.text, n.next = text, next
	case n.texts == nil:
		n.texts = map[string]*patternNode{text: next}
	default:
		n.texts[text] = next
	}
	return next
}

// add puts a route where its pattern leads.
func (n *patternNode) add(p Pattern, rt *Route, texts interner) {
	for _, s := range p {
		switch s.kind {
		case segmentText:
			n = n.lead(s.text, texts)
		case segmentParam:
			if n.param == nil {
				n.param = new(patternNode)
			}
			n = n.param
		case segmentAny:
			if n.any == nil {
				n.any = new(patternNode)
			}
			n = n.any
		case segmentRest:
			n.rest.insert(rt)
			return
		}
	}
	n.here.insert(rt)
}

// walk tries the patterns that take the path, whose segments before index at have
// led to n. Among them it tries the prefixes that are to be preferred.
func (s *search) walk(n *patternNode, at int) bool {
	if at > len(s.path) {
		return s.try(n.here)
	}
	end := len(s.path)
	if i := strings.IndexByte(s.path[at:], '/'); i >= 0 {
		end = at + i
	}
	text := s.path[at:end]
	if next := n.after(text); next != nil && s.walk(next, end+1) {
		return true
	}
	if n.param == nil && n.any == nil && n.rest == (place{}) {
		return false
	}
	// A prefix that spells this segment out knows it better than a variable does.
	if s.tryPrefixes(end) {
		return true
	}
	if text != "" {
		if n.param != nil && s.walk(n.param, end+1) || n.any != nil && s.walk(n.any, end+1) {
			return true
		}
	}
	return s.try(n.rest)
}
