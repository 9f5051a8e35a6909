package main

import (
	"fmt"
	"math"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/balance"
)

const (
	nodes = 10
	keys  = 100_000
	sets  = 20 // sets of node names; a single set may be an outlier
)

// assign returns the node of each key for a list of nodes.
type assign func(names []string) (owners []string)

func printDistribution() {
	fmt.Printf("\n%d keys on %d nodes, with %d sets of names. Load is compared to the mean; moved are the keys when one node leaves (each in turn), needlessly those that were not its own.\n\n",
		keys, nodes, sets)
	fmt.Println("| virtual nodes | CV, mean | CV, worst | least load | most load | moved | moved needlessly | back when it is back |")
	fmt.Println("|--:|--:|--:|--:|--:|--:|--:|--:|")
	texts, hashes := make([]string, keys), make([]uint64, keys)
	for i := range keys {
		texts[i] = fmt.Sprintf("user-%d", i)
		hashes[i] = balance.Hash(texts[i])
	}
	printShares("0 (Caddy's `header`)", func(names []string) []string { return byCaddy(names, texts) })
	for _, virtualNodes := range []int{1, 10, 50, 150, 300} {
		printShares(fmt.Sprint(virtualNodes), func(names []string) []string {
			members := make([]balance.Member, len(names))
			for i, name := range names {
				members[i] = balance.Member{Name: name, Weight: 1}
			}
			ring := balance.NewRing(members, virtualNodes)
			owners := make([]string, keys)
			for i, hash := range hashes {
				owners[i] = names[ring.Find(hash)]
			}
			return owners
		})
	}
}

// byCaddy assigns keys with Caddy's header selection policy.
func byCaddy(names, keys []string) []string {
	pool := make(reverseproxy.UpstreamPool, len(names))
	for i, name := range names {
		pool[i] = &reverseproxy.Upstream{Dial: name, Host: new(reverseproxy.Host)}
	}
	policy := reverseproxy.HeaderHashSelection{Field: "X-User"}
	value := []string{""}
	r := &http.Request{Header: http.Header{"X-User": value}}
	owners := make([]string, len(keys))
	for i, key := range keys {
		value[0] = key
		owners[i] = policy.Select(pool, r, nil).Dial
	}
	return owners
}

func printShares(label string, assign assign) {
	var sum, worst float64
	least, most := math.Inf(1), 0.0
	for set := range sets {
		cv, low, high := spread(assign(namesOf(set)))
		sum, worst, least, most = sum+cv, max(worst, cv), min(least, low), max(most, high)
	}
	names := namesOf(0)
	before := assign(names)
	fewest, all, needless := keys, 0, 0
	for gone := range names {
		moved := 0
		for i, owner := range assign(slices.Delete(slices.Clone(names), gone, gone+1)) {
			if owner == before[i] {
				continue
			}
			moved++
			if before[i] != names[gone] {
				needless++
			}
		}
		fewest, all = min(fewest, moved), max(all, moved)
	}
	// The removed node returns at another position in the list.
	back := slices.Equal(before, assign(append(slices.Clone(names[1:]), names[0])))
	fmt.Printf("| %s | %.4f | %.4f | %.2f | %.2f | %.1f–%.1f %% | %d | %s |\n", label, sum/sets, worst, least, most,
		100*float64(fewest)/keys, 100*float64(all)/keys, needless, map[bool]string{true: "all", false: "not all"}[back])
}

func namesOf(set int) []string {
	names := make([]string, nodes)
	for i := range names {
		names[i] = fmt.Sprintf("shop%d-payment-%d", set, i+1)
	}
	return names
}

// spread returns the coefficient of variation of the nodes' loads, and the lowest and
// highest load relative to the mean.
func spread(owners []string) (cv, least, most float64) {
	counts := make(map[string]int)
	for _, owner := range owners {
		counts[owner]++
	}
	const mean = float64(keys) / nodes
	least = math.Inf(1)
	var squares float64
	for _, n := range counts {
		load := float64(n) / mean
		squares += (load - 1) * (load - 1)
		least, most = min(least, load), max(most, load)
	}
	if len(counts) < nodes {
		squares += float64(nodes - len(counts))
		least = 0
	}
	return math.Sqrt(squares / nodes), least, most
}
