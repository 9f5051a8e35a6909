package routing

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pattern is a path pattern, such as `/users/:id/profile` or `/files/*`. A segment
// `:name` matches any single non-empty segment, as a named parameter. A segment `*`
// does the same without a name. At the end, `*` matches the rest of the path after the
// slash, which may be empty. Other segments match literally. A pattern matches whole
// paths, including a trailing slash.
type Pattern []segment

type segment struct {
	kind segmentKind
	text string // literal text or parameter name
}

type segmentKind uint8

const (
	segmentText  segmentKind = iota
	segmentParam             // :name
	segmentAny               // * before the end
	segmentRest              // * at the end
)

// ParsePattern parses a path that begins with a slash. It returns nil if the path has
// no variable segments: then it is a prefix.
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
			return nil, errors.New("a wildcard must be a whole segment: write /* for the rest of the path")
		case strings.HasPrefix(text, ":"):
			s = segment{kind: segmentParam, text: text[1:]}
			if !isName(s.text) {
				return nil, fmt.Errorf("invalid parameter %q: must consist of letters, digits and underscores, as in /:id", text)
			}
			if slices.Contains(p, s) {
				return nil, fmt.Errorf("duplicate parameter %q: use different names", text)
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

// shape returns a string that is equal for patterns that match the same paths.
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

// Names returns the names of the pattern's parameters. The final wildcard has the name
// `*`.
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

// Param returns the value of a parameter in a path that the pattern matches. `*` is the
// name of the final wildcard. Unknown parameters are empty.
func (p Pattern) Param(path, name string) string {
	for _, s := range p {
		path = path[1:] // remove the slash
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

// fixedLength returns the length of a matching path without the slash and the rest that
// the final wildcard matches.
func (p Pattern) fixedLength(path string) int {
	at := 0
	for range p[:len(p)-1] {
		at++ // include the slash
		if end := strings.IndexByte(path[at:], '/'); end >= 0 {
			at += end
		}
	}
	return at
}

// patternNode is a node of the tree of all patterns. Each level of the tree is a
// segment.
type patternNode struct {
	text  string // literal of the first child; most nodes have only one
	next  *patternNode
	texts map[string]*patternNode // the other literal children
	param *patternNode
	any   *patternNode
	rest  candidates // routes whose pattern continues with a final wildcard
	here  candidates // routes whose pattern ends here
}

// interner deduplicates strings, so that common strings stay in the CPU cache.
type interner map[string]string

func (in interner) intern(text string) string {
	if own, ok := in[text]; ok {
		return own
	}
	own := strings.Clone(text)
	in[own] = own
	return own
}

// child returns the child for a literal segment, or nil.
func (n *patternNode) child(text string) *patternNode {
	if n.next != nil && n.text == text {
		return n.next
	}
	return n.texts[text]
}

// ensureChild returns the child for a literal segment. It adds a missing child.
func (n *patternNode) ensureChild(text string, texts interner) *patternNode {
	if next := n.child(text); next != nil {
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

// add adds a route at the node of its pattern.
func (n *patternNode) add(p Pattern, rt *Route, texts interner) {
	for _, s := range p {
		switch s.kind {
		case segmentText:
			n = n.ensureChild(s.text, texts)
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

// walk tries the patterns below n against the path from byte offset at. The segments
// before at have matched. Prefixes that take precedence are tried in between.
func (s *search) walk(n *patternNode, at int) bool {
	if at > len(s.path) {
		return s.try(n.here)
	}
	end := len(s.path)
	if i := strings.IndexByte(s.path[at:], '/'); i >= 0 {
		end = at + i
	}
	text := s.path[at:end]
	if next := n.child(text); next != nil && s.walk(next, end+1) {
		return true
	}
	if n.param == nil && n.any == nil && n.rest == (candidates{}) {
		return false
	}
	// A prefix that includes this segment takes precedence over a variable segment.
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
