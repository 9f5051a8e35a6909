package routing

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
)

// tree is an immutable radix tree (a compact prefix trie) over byte strings.
// A lookup costs a step per branching point on the way, whatever the number of
// keys, and allocates nothing.
//
// What a step costs in a large tree is the wait for memory. So nodes are small
// and lie in one slice, siblings next to each other, with the bytes that choose
// among their children inside: a step reads one cache line. Most nodes would have
// a key and no children: where all children of a node are like that, the keys'
// leaves stand in their place.
type tree[T any] struct {
	nodes  []node
	labels string   // what the nodes' labels say, one after the other
	wide   []string // the edges of the nodes with more than maxEdges children
	leaves []leaf[T]
}

// maxEdges is how many children a node can have without looking elsewhere. Ten
// digits fit, and with them most trees of generated names.
const maxEdges = 15

type node struct {
	edges    [maxEdges]byte // the first byte of every child's label, in the children's order
	count    uint8          // the number of children, or isWide
	label    uint32         // where in labels the node's label goes on after its first byte …
	labelLen uint32         // … and for how long
	first    int32          // the index of the first child, or if they are leaves, its complement
	leaf     int32          // the index of the key that ends here, or none
}

// isWide is the count of a node with more children than edges has room for: it
// has the index of their first bytes in wide instead.
const isWide = maxEdges + 1

type leaf[T any] struct {
	value    T
	outer    int32  // the leaf of the next shorter key that is a prefix of this one, or none
	label    uint32 // as a node's, if this leaf is in the place of one
	labelLen uint32
}

const none = -1

// newTree builds the tree of the given keys.
func newTree[T any](values map[string]T) *tree[T] {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	b := treeBuilder[T]{
		tree:   &tree[T]{nodes: []node{{leaf: none}}, leaves: make([]leaf[T], 0, len(keys))},
		values: values,
		placed: make(map[string]uint32),
	}
	b.fill(0, keys, 0, none)
	b.tree.nodes = slices.Clip(b.tree.nodes)
	b.tree.labels = b.labels.String()
	return b.tree
}

type treeBuilder[T any] struct {
	tree   *tree[T]
	values map[string]T
	labels strings.Builder
	placed map[string]uint32 // where in labels each one stands
}

// place returns where a label stands among all labels. Equal ones share a place:
// generated names have few different endings, which then stay in the cache.
func (b *treeBuilder[T]) place(label string) uint32 {
	at, ok := b.placed[label]
	if !ok {
		at = uint32(b.labels.Len())
		b.labels.WriteString(label)
		b.placed[label] = at
	}
	return at
}

// fill gives node i its key and children: keys are sorted and share their first
// depth bytes, which is what the way from the root to node i spells.
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
	if len(groups) == len(keys) { // one key each
		t.setEdges(i, edges, ^int32(len(t.leaves)))
		for _, key := range keys {
			label := key[depth+1:]
			t.leaves = append(t.leaves, leaf[T]{b.values[key], outer, b.place(label), uint32(len(label))})
		}
		return
	}
	first := int32(len(t.nodes))
	t.setEdges(i, edges, first)
	ends := make([]int, len(groups))
	for n, group := range groups {
		ends[n] = depth + commonPrefix(group[0][depth:], group[len(group)-1][depth:])
		label := group[0][depth+1 : ends[n]]
		t.nodes = append(t.nodes, node{label: b.place(label), labelLen: uint32(len(label)), leaf: none})
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

// edge returns which child's label begins with c, -1 if none does: it looks at
// eight edges at a time (Warren, Hacker's Delight, second edition, 6-1: the first
// zero byte of a word). Edges that are not there come after those that are.
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

// longest returns the leaf of the longest key that s begins with, or none.
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

// commonPrefix returns how many bytes a and b both begin with. For the first and
// the last of sorted strings, all those between begin with them too.
func commonPrefix(a, b string) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
