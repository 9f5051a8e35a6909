package balance

import (
	"fmt"
	"testing"
	"time"
)

const ms = time.Millisecond

// at is a time at which an empty history has long expired.
const at = time.Hour

func TestEstimateFollowsResponses(t *testing.T) {
	h := new(history)
	if v := h.view(at, 0); v.estimate != 0 || v.resting {
		t.Errorf("of a new one, %+v is known", v)
	}
	for _, step := range []struct {
		after, took, want time.Duration
		why               string
	}{
		{0, 100 * ms, 100 * ms, "the first response is the estimate"},
		{time.Second, 20 * ms, 60 * ms, "half of the difference is gone after a half-life"},
		{2 * time.Second, 20 * ms, 30 * ms, "and three quarters after two"},
		{0, 10 * ms, 30 * ms, "at once, a fast response changes nothing"},
		{0, 40 * ms, 40 * ms, "a slow response counts at once"},
		{0, 10 * time.Second, 80 * ms, "though only to twice the estimate"},
		{forgetAfter, 80 * ms, 80 * ms, "so far it was remembered"},
		{forgetAfter + 1, 5 * ms, 5 * ms, "what is older is forgotten"},
	} {
		step.after += time.Duration(h.updated.Load())
		if h.estimate.Load() == 0 {
			step.after = at
		}
		h.responded(step.after, step.took)
		if got := h.view(step.after, 0).estimate.Round(10 * time.Microsecond); got != step.want {
			t.Errorf("%s: got %s, want %s", step.why, got, step.want)
		}
	}
	if v := h.view(time.Duration(h.updated.Load())+forgetAfter+1, 0); v.estimate != 0 {
		t.Errorf("after a long time, %s is still remembered", v.estimate)
	}
}

func TestGivingUpWaitingOnlyMakesItSlower(t *testing.T) {
	h := new(history)
	h.abandoned(at, time.Second)
	if v := h.view(at, 0); v.estimate != 0 {
		t.Errorf("the first client left after a second, and the estimate is %s", v.estimate)
	}
	h.responded(at, 10*ms)
	h.abandoned(at+1, 5*ms)
	if v := h.view(at+1, 0); v.estimate != 10*ms {
		t.Errorf("a client left early, and the estimate is %s", v.estimate)
	}
	h.abandoned(at+2, time.Second)
	if v := h.view(at+2, 0); v.estimate != 20*ms {
		t.Errorf("a client left after a second, and the estimate is %s", v.estimate)
	}
}

func TestFailuresMakeItRestLongerAndLonger(t *testing.T) {
	h := new(history)
	now := time.Duration(at)
	for i, rest := range []time.Duration{1, 2, 4, 8, 10, 10, 10} {
		rest *= time.Second
		h.broke(now)
		h.broke(now + ms) // concurrent with the first failure
		if v := h.view(now+rest-1, 0); !v.resting {
			t.Errorf("failure %d: it does not rest for %s", i+1, rest)
		}
		now += rest
		if v := h.view(now, 0); v.resting || v.estimate != 0 {
			t.Errorf("failure %d: after %s it is not as good as new, but %+v", i+1, rest, v)
		}
		h.waiting.Store(1)
		if v := h.view(now, 1); !v.resting {
			t.Errorf("failure %d: more than one request tries it", i+1)
		}
		h.waiting.Store(0)
	}
	h.responded(now, 7*ms)
	if v := h.view(now, 0); v.resting || v.estimate != 7*ms {
		t.Errorf("after a response it is %+v", v)
	}
	h.broke(now)
	if v := h.view(now+firstRest, 0); v.resting {
		t.Error("failures from before the response still count")
	}
}

func TestWhichIsPreferred(t *testing.T) {
	for _, test := range []struct{ better, worse view }{
		{view{estimate: 10 * ms}, view{estimate: 50 * ms}},
		{view{estimate: 10 * ms, inFlight: 3}, view{estimate: 50 * ms}},
		{view{estimate: 50 * ms}, view{estimate: 10 * ms, inFlight: 5}},
		{view{estimate: 14 * ms, inFlight: 1}, view{estimate: 10 * ms, inFlight: 2}}, // within the tolerance of sameLatency
		{view{}, view{estimate: ms}},                                                 // not probed yet
		{view{}, view{inFlight: 1}},                                                  // probe in flight
		{view{inFlight: 1}, view{inFlight: 2}},
		{view{inFlight: 1}, view{estimate: ms, inFlight: 2}},
		{view{estimate: time.Second, inFlight: 1}, view{inFlight: 2}},
	} {
		if !test.better.before(test.worse) || test.worse.before(test.better) {
			t.Errorf("%+v is not preferred to %+v", test.better, test.worse)
		}
	}
	for _, test := range []struct{ a, b view }{
		{view{}, view{}},
		{view{inFlight: 2}, view{estimate: ms, inFlight: 2}},
		{view{estimate: 10 * ms, inFlight: 1}, view{estimate: 14 * ms, inFlight: 1}},
	} {
		if test.a.before(test.b) || test.b.before(test.a) {
			t.Errorf("one of %+v and %+v is preferred", test.a, test.b)
		}
	}
}

func TestTableForgetsAndStaysSmall(t *testing.T) {
	tab := new(table)
	now := time.Duration(at)
	used := tab.of("busy", now)
	used.waiting.Store(1)
	for i := range 10_000 {
		now += 100 * ms // 100 responses within forgetAfter
		dial := fmt.Sprint(i)
		h := tab.of(dial, now)
		h.responded(now, ms)
		if tab.of(dial, now) != h || tab.find(dial) != h {
			t.Fatal("it is another one every time")
		}
	}
	if tab.size > 400 {
		t.Errorf("there are %d histories", tab.size)
	}
	count := 0
	tab.byDial.Range(func(any, any) bool { count++; return true })
	if count != tab.size {
		t.Errorf("there are %d histories, not %d", count, tab.size)
	}
	if tab.find("busy") != used || tab.find("9999") == nil || tab.find("0") != nil {
		t.Error("it remembers other upstreams than those of late and those in use")
	}
}
