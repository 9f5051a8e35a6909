package dockerupstreams

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"
)

func targets(n int) []Target {
	all := make([]Target, n)
	for i := range all {
		all[i] = Target{
			Dial: fmt.Sprintf("10.%d.%d.%d:80", i>>16&0xff, i>>8&0xff, i&0xff), Container: fmt.Sprintf("c%05d", i),
			ID: fmt.Sprintf("%064x", i), Scheme: "http", Weight: 1, MaxRequests: i,
		}
	}
	return all
}

func TestByDial(t *testing.T) {
	for _, n := range []int{0, 1, fewTargets, fewTargets + 1, 1000} {
		set := &Set{Targets: targets(n)}
		for i := range set.Targets {
			if got := set.ByDial(set.Targets[i].Dial); got != &set.Targets[i] {
				t.Fatalf("of %d: found %v, want target %d", n, got, i)
			}
		}
		if got := set.ByDial("10.9.9.9:1"); got != nil {
			t.Errorf("of %d: found %v, want none", n, got)
		}
	}
	// Two containers may share an address, such as their host's.
	twins := &Set{Targets: append(targets(20), targets(20)...)}
	if got := twins.ByDial("10.0.0.3:80"); got != &twins.Targets[3] {
		t.Errorf("found %v, want the first", got)
	}
}

func TestUpstreams(t *testing.T) {
	for n := range 10 {
		all := targets(n)
		upstreams := Upstreams(all)
		if upstreams == nil || len(upstreams) != n {
			t.Fatalf("%d upstreams for %d targets", len(upstreams), n)
		}
		for i, u := range upstreams {
			if u.Dial != all[i].Dial || u.MaxRequests != all[i].MaxRequests {
				t.Errorf("upstream %d of %d is %s with %d", i, n, u.Dial, u.MaxRequests)
			}
		}
		allocs := testing.AllocsPerRun(100, func() { Upstreams(all) })
		if allocs > 2 {
			t.Errorf("%v allocations for %d targets, want 2 at most", allocs, n)
		}
	}
}

// Incrementally updated sets equal sets that are built from scratch.
func TestViewsStayWhole(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sel := Selector{MatchLabels: map[string]string{"app": "web"}}
	table := newTable(func(*container) bool { return true })
	v := newView(sel)
	for round := range 500 {
		for range random.IntN(5) {
			c := running(func(c *container) {
				c.id = fmt.Sprintf("%064x", random.IntN(30))
				c.name = fmt.Sprintf("c%d", random.IntN(30))
				c.labels = map[string]string{"app": []string{"web", "web", "db"}[random.IntN(3)]}
				c.health = health(random.IntN(4))
			})
			now := time.Now()
			switch random.IntN(5) {
			case 0:
				table.apply(event{id: c.id, action: actionEnd, at: now}, now)
			case 1:
				table.apply(event{id: c.id, action: actionKill, signal: 15, at: now}, now)
			case 2:
				table.apply(event{id: c.id, action: actionPause, at: now}, now)
			default:
				table.apply(event{id: c.id, action: actionStart, at: now}, now)
				table.begin()
				table.replace([]string{c.id}, []*container{c}, now)
			}
		}
		for id := range table.touched {
			c := table.running[id]
			if c == nil || !sel.matches(c.labels) {
				v.remove(id)
				continue
			}
			v.consider(id, c, nil, table.drains(id), &onHost)
		}
		clear(table.touched)
		v.publish(true)

		fresh := newView(sel)
		for id, c := range table.running {
			if !sel.matches(c.labels) {
				continue
			}
			fresh.consider(id, c, nil, table.drains(id), &onHost)
		}
		fresh.publish(true)
		got, want := v.set.Load(), fresh.set.Load()
		if !slices.Equal(got.Targets, want.Targets) || !slices.Equal(got.Rejected, want.Rejected) {
			t.Fatalf("round %d: the set is\n%+v\n%+v, want\n%+v\n%+v", round, got.Targets, got.Rejected, want.Targets, want.Rejected)
		}
	}
}

func TestUnchangedSetsAreNotReplaced(t *testing.T) {
	v := newView(Selector{MatchLabels: map[string]string{"app": "web"}})
	c := running(nil)
	v.consider(c.id, c, nil, false, &onHost)
	v.publish(true)
	before := v.set.Load()
	again := running(nil)
	v.consider(again.id, again, nil, false, &onHost)
	v.publish(true)
	if v.set.Load() != before {
		t.Error("the set was replaced by an equal one")
	}
	v.publish(false)
	if after := v.set.Load(); after == before || after.Synced || after.Generation != before.Generation+1 {
		t.Errorf("the set is %+v, want a new one that is not synced", after)
	}
}

// Events received after the request for a list are newer than the list.
func TestEventsOvertakeLists(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		during  []event
		running []string
		dirty   []string
		drains  bool
	}{
		"nothing":   {running: []string{"a", "b"}},
		"died":      {during: []event{{id: "a", action: actionEnd, at: now}}, running: []string{"b"}},
		"started":   {during: []event{{id: "c", action: actionStart, at: now}}, running: []string{"a", "b"}, dirty: []string{"c"}},
		"restarted": {during: []event{{id: "a", action: actionEnd, at: now}, {id: "a", action: actionStart, at: now}}, running: []string{"b"}, dirty: []string{"a"}},
		"killed":    {during: []event{{id: "a", action: actionKill, signal: 15, at: now}}, running: []string{"a", "b"}, drains: true},
		"died long ago": {during: []event{{id: "a", action: actionEnd, at: now.Add(-time.Second)}}, running: []string{"a", "b"},
			dirty: []string{"a"}},
		"paused long ago": {during: []event{{id: "a", action: actionPause, at: now.Add(-time.Second)}}, running: []string{"a", "b"},
			dirty: []string{"a"}},
		"detached from a network, unknown": {during: []event{{id: "c", action: actionNetwork, at: now}}, running: []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			list := func() []*container {
				return []*container{{id: "a", state: "running"}, {id: "b", state: "running"}}
			}
			for _, whole := range []bool{true, false} {
				table := newTable(func(*container) bool { return true })
				table.connect(now.Add(-time.Millisecond))
				table.replaceAll(list(), now)
				table.begin()
				for _, e := range c.during {
					table.apply(e, now)
				}
				if whole {
					table.replaceAll(list(), now)
				} else {
					table.replace([]string{"a", "b"}, list(), now)
				}
				if got := slices.Sorted(maps.Keys(table.running)); !slices.Equal(got, c.running) {
					t.Errorf("running (whole list: %v): %v, want %v", whole, got, c.running)
				}
				if got := slices.Sorted(maps.Keys(table.dirty)); !slices.Equal(got, c.dirty) {
					t.Errorf("dirty (whole list: %v): %v, want %v", whole, got, c.dirty)
				}
				if table.drains("a") != c.drains {
					t.Errorf("drains (whole list: %v): %v, want %v", whole, table.drains("a"), c.drains)
				}
			}
		})
	}
}

func TestMergeSets(t *testing.T) {
	all := targets(4)
	got := mergeSets([]*Set{
		{Targets: []Target{all[1], all[3]}, Rejected: []Rejection{{Container: "y"}}, Generation: 3, Synced: true},
		{Targets: []Target{all[0], all[2]}, Rejected: []Rejection{{Container: "x"}}, Generation: 4, Synced: false},
	})
	want := &Set{Targets: all, Rejected: []Rejection{{Container: "x"}, {Container: "y"}}, Generation: 7}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("merged to %+v, want %+v", got, want)
	}
}
