package integration

import (
	"strings"
	"testing"
)

// Usage storage and quotas that no statistics handler counts for are rejected during
// validation.
func TestBandwidthRequiresStatistics(t *testing.T) {
	t.Parallel()
	const proxy, quota = "reverse_proxy 127.0.0.1:1\n", "rgate_quota 1KB day {\nat_limit block\n}\n"
	const counts, kept = `unknown gateway "rgate_stats": add an rgate_stats with this name`,
		`no rgate_bandwidth records gateway "rgate_stats"`
	const gateway = "rgate {\nbackend web {\ndial 127.0.0.1:1\n}\nroute / web\n%s}\n"
	gate := func(more string) string { return strings.Replace(gateway, "%s", more, 1) }
	for name, tc := range map[string]struct{ site, says string }{
		"no statistics":               {"rgate_bandwidth /bw\n" + quota + proxy, counts},
		"no account":                  {"rgate_stats\n" + quota + proxy, kept},
		"an account that is off":      {"rgate_stats\nrgate_bandwidth off\n" + quota + proxy, kept},
		"all":                         {"rgate_stats\nrgate_bandwidth /bw\n" + quota + proxy, ""},
		"against the order":           {"route {\n" + quota + "rgate_bandwidth\nrgate_stats\n" + proxy + "}\n", ""},
		"in another route":            {"rgate_bandwidth\nroute /a/* {\n" + quota + "}\nhandle /b/* {\nroute {\nrgate_stats\n" + proxy + "}\n}\n", ""},
		"on another site":             {"rgate_bandwidth\n" + quota + proxy + "}\n:9091 {\nrgate_stats\n" + proxy, ""},
		"before another site":         {"rgate_stats\n" + proxy + "}\n:9091 {\nrgate_bandwidth\n" + quota + proxy, ""},
		"a gateway of another name":   {"rgate_bandwidth\n" + gate(""), counts},
		"a gateway by its name":       {"rgate_bandwidth {\ngateway rgate\n}\n" + gate(""), ""},
		"a quota beside a gateway":    {"rgate_quota 1KB {\ngateway rgate\n}\n" + gate("rgate_bandwidth\n"), ""},
		"a gateway without account":   {"rgate_quota 1KB {\ngateway rgate\n}\n" + gate(""), `records gateway "rgate"`},
		"sources alone are no mishap": {"rgate_bandwidth {\nsources {\nname a\nurl http://a/\n}\n}\n" + proxy, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := writeFile(t, "Caddyfile", "{\nadmin off\n}\n:9090 {\n"+tc.site+"}\n")
			out := rgate(t, nil, "validate", "--config", file)
			if (out.code == 0) != (tc.says == "") || !strings.Contains(strings.ReplaceAll(out.stderr, `\"`, `"`), tc.says) {
				t.Errorf("got %d and %s, want %q", out.code, out.stderr, tc.says)
			}
		})
	}
}

func TestPartsOfAGatewayThatDoNotGoTogether(t *testing.T) {
	t.Parallel()
	const rest = "routes: [{path_prefix: /, backend: web}]\nbackends: [{name: web, dial: [\"127.0.0.1:1\"]}]\n"
	for config, says := range map[string]string{
		"bandwidth: false\nquota: {egress: 1KB}\n":                       "rgate.yaml:2: quota requires bandwidth, which is disabled: enable bandwidth or remove quota",
		"bandwidth: false\ndashboard: {path: /dash}\n":                   "rgate.yaml:2: dashboard requires bandwidth, which is disabled: enable bandwidth or remove dashboard",
		"bandwidth: false\nnotify: {webhook: {url: \"http://a/\"}}\n":    "rgate.yaml:2: notify requires bandwidth, which is disabled: enable bandwidth or remove notify",
		"bandwidth: false\nquota: false\n":                               "",
		"bandwidth: {path: /x}\ndashboard: {path: /x}\n":                 "rgate.yaml:2: /x of dashboard and /x of bandwidth overlap: use another path for one of the two (the other is ",
		"bandwidth: {path: /stats}\n":                                    "rgate.yaml:1: /stats of bandwidth and /stats of the statistics page overlap",
		"bandwidth: {path: /stats}\nstats: {path: /figures}\n":           "",
		"bandwidth: {path: /stats}\nstats: false\n":                      "",
		"bandwidth: {path: /dashboard}\ndashboard: true\n":               "rgate.yaml:1: /dashboard of dashboard and /dashboard of bandwidth overlap",
		"bandwidth: {path: /dashboard/usage}\ndashboard: true\n":         "overlap",
		"operations: true\ndashboard: {path: /gateway/dashboard}\n":      "rgate.yaml:2: /gateway/dashboard of dashboard and /gateway of operations overlap",
		"bandwidth: {allow: [192.0.2.1]}\n":                              "allow requires path: set path",
		"bandwidth: {node: a, sources: [{name: a, url: \"http://a/\"}]}": "must differ from the node of this gateway",
	} {
		out := validate(t, strings.TrimSuffix(config, "\n")+"\n"+rest)
		if (out.code == 0) != (says == "") || !strings.Contains(out.stderr, says) {
			t.Errorf("%s got %d and %s, want %q", config, out.code, out.stderr, says)
		}
	}
}
