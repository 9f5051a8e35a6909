package routing

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
)

// tree is an immutable radix tree (compact prefix trie) over byte strings. A lookup
// takes one step per branching point, regardless of the number of keys, and does not
// allocate.
//
// In a large tree, each step costs a cache miss. Therefore all nodes are in one slice,
// with siblings next to each other. A node is small and contains the bytes that select
// a child, so that a step reads one cache line. If all children of a node have a key
// and no children, they are stored as leaves only.
type tree[T any] struct {
	nodes  []node
	labels string   // concatenated labels of all nodes
	wide   []string // edges of nodes with more than maxEdges children
	leaves []leaf[T]
}

// maxEdges is the maximum number of children whose first bytes are stored in the node.
// It covers the ten digits, which is sufficient for most generated names.
const maxEdges = 15

type node struct {
	edges    [maxEdges]byte // first bytes of the children's labels, in the order of the children
	count    uint8          // number of children, or isWide
	label    uint32         // offset in labels of the node's label without its first byte
	labelLen uint32         // length of the label
	first    int32          // index of the first child; its bitwise complement if the children are leaves
	leaf     int32          // index of the key that ends here, or none
}

// isWide is the count of a node with more than maxEdges children. Its first bytes are
// in wide, at the index in edges.
const isWide = maxEdges + 1

type leaf[T any] struct {
	value    T
	outer    int32  // leaf of the next shorter key that is a prefix of this key, or none
	label    uint32 // as in node, if the leaf replaces a node
	labelLen uint32
}

const none = -1

// newTree builds a tree of the given keys and values.
func newTree[T any](values map[string]T) *tree[T] {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	b := treeBuilder[T]{
		tree:    &tree[T]{nodes: []node{{leaf: none}}, leaves: make([]leaf[T], 0, len(keys))},
		values:  values,
		offsets: make(map[string]uint32),
	}
	b.fill(0, keys, 0, none)
	b.tree.nodes = slices.Clip(b.tree.nodes)
	b.tree.labels = b.labels.String()
	return b.tree
}

type treeBuilder[T any] struct {
	tree    *tree[T]
	values  map[string]T
	labels  strings.Builder
	offsets map[string]uint32 // offset of each label in labels
}

// offset returns the offset of a label in labels. Equal labels share an offset:
// generated names have few different endings, which then stay in the CPU cache.
func (b *treeBuilder[T]) offset(label string) uint32 {
	at, ok := b.offsets[label]
	if !ok {
		at = uint32(b.labels.Len())
		b.labels.WriteString(label)
		b.offsets[label] = at
	}
	return at
}

// fill sets the key and children of node i. The keys are sorted. Their first depth
// bytes are the labels on the path from the root to node i.
func (b *treeBuilder[T]) fill(i int32, keys []string, depth int, outer int32) {
	t := b.tree
	if len(keys) > 0 && len(keys[0]) == depth {
		t.leaves = append(t.leaves, leaf[T]{value: b.values[keys[0]], outer: outer})
		outer = int32(len(t.leaves) - 1)
		t.nodes[i].leaf = outer
		keys = keys[1:]
	}
	var groups [][]string
	var edges []byte
	for rest := keys; len(rest) > 0; {
		edge := rest[0][depth]
		n, _ := slices.BinarySearchFunc(rest, edge, func(key string, edge byte) int {
			if key[depth] <= edge {
				return -1
			}
			return 1
		})
		groups, edges, rest = append(groups, rest[:n]), append(edges, edge), rest[n:]
	}
	if len(groups) == len(keys) { // one key per group
		t.setEdges(i, edges, ^int32(len(t.leaves)))
		for _, key := range keys {
			label := key[depth+1:]
			t.leaves = append(t.leaves, leaf[T]{b.values[key], outer, b.offset(label), uint32(len(label))})
		}
		return
	}
	first := int32(len(t.nodes))
	t.setEdges(i, edges, first)
	ends := make([]int, len(groups))
	for n, group := range groups {
		ends[n] = depth + commonPrefix(group[0][depth:], group[len(group)-1][depth:])
		label := group[0][depth+1 : ends[n]]
		t.nodes = append(t.nodes, node{label: b.offset(label), labelLen: uint32(len(label)), leaf: none})
	}
	for n, group := range groups {
		b.fill(first+int32(n), group, ends[n], outer)
	}
}

func (t *tree[T]) setEdges(i int32, edges []byte, first int32) {
	n := &t.nodes[i]
	n.first, n.count = first, uint8(min(len(edges), isWide))
	if n.count == isWide {
		binary.LittleEndian.PutUint32(n.edges[:], uint32(len(t.wide)))
		t.wide = append(t.wide, string(edges))
		return
	}
	copy(n.edges[:], edges)
}

// edge returns the index of the child whose label begins with c, or -1. It compares
// eight edges at a time (Warren, Hacker's Delight, second edition, 6-1: find the first
// zero byte of a word). Unused edges come last.
func (n *node) edge(c byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	all := ones * uint64(c)
	word := binary.LittleEndian.Uint64(n.edges[:]) ^ all
	i := bits.TrailingZeros64((word-ones)&^word&highs) / 8
	if i == 8 && n.count > 8 {
		word = binary.LittleEndian.Uint64(n.edges[maxEdges-8:]) ^ all
		i = maxEdges - 8 + bits.TrailingZeros64((word-ones)&^word&highs)/8
	}
	if i >= int(n.count) {
		return -1
	}
	return i
}

// longest returns the leaf of the longest key that is a prefix of s, or none.
func (t *tree[T]) longest(s string) int32 {
	n := &t.nodes[0]
	found := n.leaf
	for s != "" {
		edge := -1
		if n.count == isWide {
			edge = strings.IndexByte(t.wide[binary.LittleEndian.Uint32(n.edges[:])], s[0])
		} else {
			edge = n.edge(s[0])
		}
		if edge < 0 {
			break
		}
		s = s[1:]
		if n.first < 0 {
			at := ^n.first + int32(edge)
			if l := &t.leaves[at]; strings.HasPrefix(s, t.labels[l.label:l.label+l.labelLen]) {
				return at
			}
			break
		}
		n = &t.nodes[n.first+int32(edge)]
		if n.labelLen > 0 {
			if !strings.HasPrefix(s, t.labels[n.label:n.label+n.labelLen]) {
				break
			}
			s = s[n.labelLen:]
		}
		if n.leaf != none {
			found = n.leaf
		}
	}
	return found
}

// commonPrefix returns the length of the common prefix of a and b. If a is the first
// and b the last of sorted strings, all of them have this prefix.
func commonPrefix(a, b string) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
