package integration

import (
	"net/http"
	"strings"
	"testing"
)

func TestD7ClientsOfUntrustedProxiesAreNotLocal(t *testing.T) {
	t.Parallel()
	g := launch(t, "Caddyfile", `{
	admin localhost:$ADMIN
	order rgate_stats before rgate
	servers {
		trusted_proxies static `+proxyAddress+`
	}
}
http://:$PORT {
	@standalone path /alone /alone-stats /alone-bandwidth
	handle @standalone {
		rgate_dashboard /alone
		rgate_bandwidth /alone-bandwidth
		rgate_stats /alone-stats {
			allow private_ranges
		}
	}
	handle {
		rgate {
			operations {
				hosts gateway *.lan
			}
			dashboard
			bandwidth /metrics/bandwidth_used
			stats {
				allow private_ranges
				hosts gateway
			}
			backend web {
				dial 127.0.0.1:1
			}
			route /web web {
				hosts shop.example.com
			}
		}
	}
}
http://ops.example.com:$PORT {
	rgate {
		name ops
		operations
		backend web {
			dial 127.0.0.1:1
		}
		route / web
	}
}
http://open.example.com:$PORT {
	rgate {
		name open
		operations {
			allow 0.0.0.0/0 ::/0
		}
		backend web {
			dial 127.0.0.1:1
		}
		route / web
	}
}
`, nil, "run", "--config", "$FILE")
	stranger, proxy := clientFrom(t, "127.0.0.1"), clientFrom(t, proxyAddress)
	ask := func(client *http.Client, target string, want int, headers ...string) {
		t.Helper()
		if got := g.askBy(t, client, target, headers...); got.status != want {
			t.Errorf("%s with %q: got status %d, want %d", target, headers, got.status, want)
		}
	}
	for _, target := range []string{"/gateway/services", "/dashboard", "/metrics/bandwidth_used", "/stats", "/alone", "/alone-stats", "/alone-bandwidth"} {
		ask(stranger, target, 200)
		for i := 0; i < len(relayFields); i += 2 {
			ask(stranger, target, 403, relayFields[i:i+2]...)
		}
		for _, field := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Via"} {
			ask(stranger, target, 403, field, "198.51.100.7")
		}
		for _, host := range []string{"evil.test", "evil.test:80", "127.0.0.1.evil.test", "localhost.evil.test", "evil", "x.shop.example.com"} {
			ask(stranger, target, 403, "Host", host)
		}
		for _, host := range []string{"localhost", "localhost:80", "x.localhost", "LOCALHOST", "[::1]", "[::1]:80", "127.0.0.1:80", "192.0.2.7"} {
			ask(stranger, target, 200, "Host", host)
		}
		ask(proxy, target, 403, "X-Forwarded-For", "198.51.100.7")
		ask(proxy, target, 200, "X-Forwarded-For", "192.168.0.7", "X-Real-IP", "192.168.0.7", "Forwarded", "for=192.168.0.7")
		ask(proxy, target, 403, "X-Forwarded-For", "192.168.0.7", "X-Forwarded-Host", "evil.test")
		ask(proxy, target, 200, "X-Forwarded-For", "192.168.0.7", "X-Forwarded-Host", "ops.example.com")
	}
	ask(stranger, "/gateway/health", 200, "Host", "ops.example.com")
	ask(stranger, "/gateway/health", 200, "Host", "OPS.example.com:80")
	ask(stranger, "/gateway/health", 403, "Host", "ops.example.com", "X-Forwarded-For", "198.51.100.7")
	ask(stranger, "/gateway/health", 200, "Host", "gateway")
	ask(stranger, "/gateway/health", 200, "Host", "rgate.lan:80")
	ask(stranger, "/gateway/health", 200, "Host", "shop.example.com")
	ask(stranger, "/gateway/health", 403, "Host", "a.rgate.lan")
	ask(stranger, "/stats", 200, "Host", "gateway")
	ask(stranger, "/dashboard", 403, "Host", "gateway")
	ask(stranger, "/gateway/health", 200, "Host", "open.example.com", "X-Forwarded-For", "198.51.100.7")
	if got := g.raw(t, "GET /gateway/health HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 200") {
		t.Errorf("without a host: %q", got)
	}

	log := g.output.String()
	if n := strings.Count(log, "rejected a request that passed an untrusted proxy"); n != 8 || !strings.Contains(log, "trusted_proxies") {
		t.Errorf("the log warns %d times, want once for each endpoint", n)
	}
}

func TestD8StatisticsAreGuarded(t *testing.T) {
	t.Parallel()
	site := func(host, options string) string {
		return "http://" + host + ":$PORT {\n\trgate {\n\t\tname " + host + "\n" + options + "\n\t\tbackend web {\n\t\t\tdial 127.0.0.1:1\n\t\t}\n\t\troute / web\n\t}\n}\n"
	}
	const key = "api_key {\n\t\t\tkeys {\n\t\t\t\tname a\n\t\t\t\tsha256 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n\t\t\t}\n\t\t}\n"
	g := launch(t, "Caddyfile", "{\n\tadmin localhost:$ADMIN\n}\n"+
		site("open.test", "")+
		site("filtered.test", "\t\tip_filter {\n\t\t\tdeny 127.0.0.3\n\t\t}")+
		site("own.test", "\t\tip_filter {\n\t\t\tallow 192.0.2.1\n\t\t}\n\t\tstats {\n\t\t\tallow 127.0.0.1\n\t\t}")+
		site("keys.test", "\t\t"+key)+
		site("guarded.test", "\t\t"+key+"\t\tstats {\n\t\t\tallow 127.0.0.1\n\t\t}"), nil, "run", "--config", "$FILE")
	near, far := clientFrom(t, "127.0.0.1"), clientFrom(t, "127.0.0.3")
	for host, want := range map[string][2]int{
		"open.test": {200, 200}, "filtered.test": {200, 403}, "own.test": {200, 403}, "keys.test": {200, 200}, "guarded.test": {200, 403},
	} {
		if got := [2]int{g.askBy(t, near, "/stats", "Host", host).status, g.askBy(t, far, "/stats", "Host", host).status}; got != want {
			t.Errorf("%s: the statistics: got %v, want %v", host, got, want)
		}
	}
	if n := strings.Count(g.output.String(), "the statistics page requires no credentials"); n != 1 {
		t.Errorf("the log warns %d times that keys do not guard the statistics, want once", n)
	}
	yaml := startGateway(t, "stats: {path: /figures, allow: [192.0.2.0/24], hosts: [figures]}\nroutes: [{path_prefix: /, backend: web}]\nbackends: [{name: web, dial: ['127.0.0.1:1']}]\n")
	if got := yaml.get(t, "/figures"); got.status != 403 {
		t.Errorf("the statistics of the YAML: got %d, want 403", got.status)
	}
}
