package upstream

import (
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy/fastcgi"

	"github.com/rgate/rgate/internal/testkit"
	"github.com/rgate/rgate/policy"
)

func TestWeightsOfAnIncompletePool(t *testing.T) {
	ctx := testkit.Context(t)
	s, err := New(ctx, Options{Name: "b", Dial: []string{"a:1", "b:1", "c:1"},
		LBPolicy: []byte(`{"policy": "weighted_round_robin", "weights": [5, 1, 3]}`)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	selector := s.proxy.LoadBalancing.SelectionPolicy.(retrySelector).Selector
	counts := func(pool reverseproxy.UpstreamPool, n int) map[string]int {
		seen := map[string]int{}
		for range n {
			seen[selector.Select(pool, nil, nil).Dial[:1]]++
		}
		return seen
	}
	if seen := counts(s.proxy.Upstreams, 90); seen["a"] != 50 || seen["b"] != 10 || seen["c"] != 30 {
		t.Errorf("the weights are 5, 1 and 3, got %v", seen)
	}
	if seen := counts(s.proxy.Upstreams[1:], 4000); seen["b"] < 800 || seen["b"] > 1200 || seen["b"]+seen["c"] != 4000 {
		t.Errorf("the weights are 1 and 3, got %v", seen)
	}
	if seen := counts(s.proxy.Upstreams[:1], 10); seen["a"] != 10 {
		t.Errorf("got %v, want a", seen)
	}
}

func TestOtherTransportsRest(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dial := listener.Addr().String()
	_ = listener.Close()
	s, err := New(testkit.Context(t), Options{Name: "b", Dial: []string{dial}, Proxy: []byte(`{"transport": {"protocol": "fastcgi"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := testkit.Prepare(httptest.NewRequest("GET", "/", nil), new(caddyhttp.Server))
	caddyhttp.SetVar(r.Context(), policy.RequestStateVar, new(Request))
	if err := s.ServeHTTP(httptest.NewRecorder(), r); err == nil {
		t.Error("no error from a closed port")
	}
	all := s.Upstreams()
	if len(all) != 1 || !strings.Contains(all[0].Reason, "connection refused") || s.Available() != 0 {
		t.Errorf("got %+v, want a resting address", all)
	}
}
