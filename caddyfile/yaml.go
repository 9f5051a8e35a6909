package caddyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// parse parses a single YAML document with a map at the top. It resolves aliases and
// merge keys, and rejects duplicate keys and tags other than !!str.
func (r *reader) parse(body []byte) (*yaml.Node, error) {
	body = bytes.TrimPrefix(body, []byte("\uFEFF"))
	if at := invalidUTF8(body); at >= 0 {
		return nil, r.failLine(lineAt(body, at), "the file is not UTF-8 text: save it as UTF-8")
	}
	var documents [2]yaml.Node
	count, err := decode(body, documents[:])
	if err != nil {
		return nil, r.syntaxError(body, err)
	}
	if count == 0 || isNull(documents[0].Content[0]) && count == 1 {
		return nil, r.failLine(1, "the file is empty: add routes and backends")
	}
	if count > 1 {
		return nil, r.fail(&documents[1], "a second document begins here: remove the --- line or split the file")
	}
	root := documents[0].Content[0]
	if root.Kind != yaml.MappingNode && root.Kind != yaml.AliasNode {
		return nil, r.fail(root, "the file must be a map with keys such as routes and backends, not %s", describe(root))
	}
	e := &expander{reader: r}
	return e.node(root, 0)
}

// decode reads documents until the end of body, or until documents is full.
func decode(body []byte, documents []yaml.Node) (count int, err error) {
	defer func() {
		// The parser panics on some malformed input.
		if recovered := recover(); recovered != nil {
			err = fmt.Errorf("yaml: %v", recovered)
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(body))
	for count < len(documents) {
		err := decoder.Decode(&documents[count])
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

var yamlPosition = regexp.MustCompile(`^yaml: (?:line \d+: )?`)

// remedies maps messages of the YAML parser to explanations.
var remedies = []struct{ complaint, message string }{
	{"mapping values are not allowed", `misplaced colon: check the indentation, and put text that contains ": " in quotes`},
	{"did not find expected key", "unexpected line in a map: check the indentation, and that every key ends in a colon"},
	{"did not find expected '-' indicator", "unexpected line in a list: check the indentation, and that every element begins with a dash"},
	{"could not find expected ':'", "a key has no value: write a colon and a space after it"},
	{"cannot start any token", "a string cannot begin with this character: put the string in quotes"},
	{"did not find expected node content", "a value is missing, or begins with a reserved character: add the value, or put it in quotes"},
	{"found unexpected end of stream", "unclosed quote: add the closing quote"},
	{"did not find expected ',' or ']'", "unclosed list: add a comma or ]"},
	{"did not find expected ',' or '}'", "unclosed map: add a comma or }, or put a placeholder in quotes"},
	{"did not find expected alphabetic or numeric character", "a string cannot begin with * or &: put the string in quotes"},
	{"control characters are not allowed", "a control character is not allowed: remove it, or write it as an escape in double quotes"},
	{"found unknown escape character", `unknown escape: double the backslash, or use single quotes`},
	{"block sequence entries are not allowed", "a list cannot begin here: put it on the next line, or in [ ]"},
}

// syntaxError returns the error for invalid YAML.
func (r *reader) syntaxError(body []byte, err error) error {
	line, text := firstBadLine(body)
	complaint := yamlPosition.ReplaceAllString(err.Error(), "")
	if indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]; bytes.ContainsRune(indent, '\t') {
		return r.failLine(line, "the indentation contains a tab: use spaces")
	}
	if name, ok := strings.CutPrefix(complaint, "unknown anchor "); ok {
		name, _, _ = strings.Cut(strings.Trim(name, "'"), "'")
		return r.failLine(line, "unknown anchor *%s: define &%s above, or put the text in quotes", name, name)
	}
	for _, remedy := range remedies {
		if strings.Contains(complaint, remedy.complaint) {
			return r.failLine(line, "%s", remedy.message)
		}
	}
	return r.failLine(line, "invalid YAML (%s): check the quotes and the indentation", complaint)
}

// firstBadLine returns the number and the text of the line after the longest valid
// prefix. The parser often reports the first line of an incomplete map instead.
func firstBadLine(body []byte) (int, []byte) {
	lines := bytes.SplitAfter(body, []byte("\n"))
	good := func(count int) bool {
		_, err := decode(bytes.Join(lines[:count], nil), make([]yaml.Node, 4))
		return err == nil
	}
	// Binary search. A prefix may be invalid because it ends inside quotes or brackets,
	// so a few longer prefixes are tried as well.
	const longest = 12
	low, high := 0, len(lines)
	for high-low > 1 {
		middle, found := (low+high)/2, false
		for count := middle; count < min(middle+longest, high) && !found; count++ {
			if found = good(count); found {
				low = count
			}
		}
		if !found {
			high = middle
		}
	}
	for low < len(lines)-1 && len(bytes.TrimSpace(lines[low])) == 0 {
		low++
	}
	return low + 1, lines[low]
}

func invalidUTF8(body []byte) int {
	for at := 0; at < len(body); {
		c, size := utf8.DecodeRune(body[at:])
		if c == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

func lineAt(body []byte, at int) int {
	return bytes.Count(body[:at], []byte("\n")) + 1
}

const (
	// The maximum depth. It stops the expansion of recursive aliases.
	maxDepth = 64

	// The maximum number of expanded nodes. It stops exponential expansion of nested
	// aliases.
	maxAliased = 100_000
)

// expander copies a tree and replaces aliases with their values.
type expander struct {
	*reader
	aliases, aliased int
}

func (e *expander) node(n *yaml.Node, depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, e.fail(n, "the value is nested more than %d levels deep: check for an alias that contains itself", maxDepth)
	}
	if e.aliases > 0 {
		if e.aliased++; e.aliased > maxAliased {
			return nil, e.fail(n, "aliases expand to more than %d values: replace some aliases by their values", maxAliased)
		}
	}
	if n.Kind == yaml.AliasNode {
		e.aliases++
		defer func() { e.aliases-- }()
		return e.node(n.Alias, depth+1)
	}
	if n.Style&yaml.TaggedStyle != 0 && !(n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str") {
		return nil, e.fail(n, "the tag %s is not supported: remove it", n.Tag)
	}
	result := *n
	result.Content = nil
	if n.Kind == yaml.MappingNode {
		return &result, e.pairs(&result, n, depth)
	}
	for _, child := range n.Content {
		child, err := e.node(child, depth+1)
		if err != nil {
			return nil, err
		}
		result.Content = append(result.Content, child)
	}
	return &result, nil
}

// pairs copies the entries of a map: its own, then entries of merged maps with other
// keys.
func (e *expander) pairs(result, n *yaml.Node, depth int) error {
	lines := make(map[string]int, len(n.Content)/2)
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, err := e.node(n.Content[i], depth+1)
		if err != nil {
			return err
		}
		value, err := e.node(n.Content[i+1], depth+1)
		switch {
		case err != nil:
			return err
		case key.Kind != yaml.ScalarNode:
			return e.fail(key, "a key must be text, not %s: if it is a placeholder, put it in quotes", describe(key))
		case key.ShortTag() == "!!merge":
			merged = append(merged, value)
			continue
		case lines[key.Value] > 0:
			return e.fail(key, "duplicate key %q: remove this one or the one in line %d", key.Value, lines[key.Value])
		}
		lines[key.Value] = key.Line
		result.Content = append(result.Content, key, value)
	}
	for _, from := range merged {
		if from.Kind != yaml.SequenceNode {
			from = &yaml.Node{Content: []*yaml.Node{from}}
		}
		for _, from := range from.Content {
			if from.Kind != yaml.MappingNode {
				return e.fail(n, "<< must be followed by an alias of a map, not %s", describe(from))
			}
			for i := 0; i+1 < len(from.Content); i += 2 {
				if key := from.Content[i]; lines[key.Value] == 0 {
					lines[key.Value] = key.Line
					result.Content = append(result.Content, key, from.Content[i+1])
				}
			}
		}
	}
	return nil
}
