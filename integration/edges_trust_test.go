package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// seen describes the request that the backend received.
type seen struct {
	Host            string
	Header, Trailer http.Header
}

// startSeeing starts a backend that responds with the request it received. The query
// parameter cache makes the response cacheable.
func startSeeing(t testing.TB) (dial string) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // fails if the gateway has disconnected
		if r.URL.Query().Has("cache") {
			w.Header().Set("Cache-Control", "max-age=60")
		}
		_ = json.NewEncoder(w).Encode(seen{r.Host, r.Header, r.Trailer}) // fails if the gateway has disconnected
	}))
	t.Cleanup(backend.Close)
	return backend.Listener.Addr().String()
}

// seenIn decodes the response of the backend.
func seenIn(t testing.TB, what string, got response) (s seen) {
	t.Helper()
	if got.status != http.StatusOK {
		t.Errorf("%s: got status %d and %q, want 200", what, got.status, got.body)
		return s
	}
	must(t, what+": reading the response", json.Unmarshal([]byte(got.body), &s))
	return s
}

// proxyAddress is the address of the only trusted proxy in these tests.
const proxyAddress = "127.0.0.2"

// clientFrom returns a client that connects from the given local address.
func clientFrom(t testing.TB, address string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: noRedirects}
}

// askBy sends a request with the given client. The header Host sets the request's host.
func (g *gateway) askBy(t testing.TB, client *http.Client, target string, headers ...string) response {
	t.Helper()
	request := g.request(t, http.MethodGet, target, "")
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			request.Host = headers[i+1]
			continue
		}
		request.Header.Add(headers[i], headers[i+1])
	}
	got, err := do(client, request)
	must(t, "GET "+target, err)
	return got
}

// relayFields holds header fields that only proxies may set, with forged values.
var relayFields = []string{
	"Forwarded", "for=198.51.100.7;host=evil.test", "X-Forwarded-Prefix", "/evil", "X-Forwarded-Server", "evil", "X-Forwarded-Ssl", "on",
	"X-Forwarded-Scheme", "https", "X-Forwarded-Uri", "/evil", "X-Forwarded-Method", "DELETE", "X-Forwarded-User", "root",
	"X-Forwarded-Email", "root@evil.test", "X-Forwarded-Groups", "admins", "X-Forwarded-Client-Cert", "By=evil",
	"X-Forwarded-Tls-Client-Cert", "evil", "X-Forwarded-Tls-Client-Cert-Info", "evil", "X-Cluster-Client-Ip", "198.51.100.7",
	"True-Client-Ip", "198.51.100.7", "Fastly-Client-Ip", "198.51.100.7", "Cf-Connecting-Ip", "198.51.100.7", "Cf-Connecting-Ipv6", "2001:db8::7",
	"X-Original-Host", "evil.test", "X-Original-Url", "/evil", "X-Original-Forwarded-For", "198.51.100.7", "X-Host", "evil.test",
	"Front-End-Https", "on", "X-Url-Scheme", "https", "X-Scheme", "https", "Fastly-Ssl", "1", "Cf-Visitor", `{"scheme":"https"}`,
	"X-Rewrite-Url", "/evil", "X-Original-Uri", "/evil", "Forwarded-For", "198.51.100.7", "X-Forward-For", "198.51.100.7",
	"X-Forwarded-Preferred-Username", "root", "X-Forwarded-Access-Token", "evil", "X-Forwarded-Anything", "evil",
	"Client-Ip", "198.51.100.7", "Proxy-Client-Ip", "198.51.100.7", "Wl-Proxy-Client-Ip", "198.51.100.7", "Wl-Proxy-Ssl", "true",
	"X-Azure-Clientip", "198.51.100.7", "X-Azure-Socketip", "198.51.100.7", "X-Envoy-External-Address", "198.51.100.7",
	"X-Envoy-Internal", "true", "X-Appengine-User-Ip", "198.51.100.7", "X-Remote-Addr", "198.51.100.7", "X-Arr-Clientcert", "evil",
}

func TestA8TrailersAreJudgedAsFieldsAre(t *testing.T) {
	t.Parallel()
	g := startAllVersions(t, `rgate {
		backend web {
			dial `+startSeeing(t)+`
		}
		backend trailing {
			dial `+startTrailing(t)+`
		}
		route / web
		route /trailing trailing
	}`, "")

	// In HTTP/1.1, trailers may be sent without being announced.
	names := []string{
		"Host", "Content-Length", "Transfer-Encoding", "Authorization", "Cookie", "Set-Cookie", "Connection", "Te", "Upgrade", "Trailer",
		"Content-Type", "Expect", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "Forwarded",
		"CF-Connecting-IP", "X-Rewrite-URL", "Client-IP", "X-Forwarded-Anything", "Proxy", "X.Rewrite_URL", "X-User-ID", "X.User.ID", "X_User_ID", "x-consumer-scopes", "X_Consumer.Scopes", "X-Gateway-Service", "X_Real.IP",
		"X_Forwarded_For", "Content_Length", "X_Other", "X.Other", "X-Request-ID", "X-API-Key",
	}
	for _, announced := range []string{"X-Checksum", "X-Checksum, X-User-ID, X-Forwarded-For, X.User.ID, Cookie"} {
		text := "POST / HTTP/1.1\r\nHost: gateway.example\r\nTransfer-Encoding: chunked\r\nTrailer: " + announced + "\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\nX-Checksum: 7\r\n"
		for _, name := range names {
			text += name + ": evil\r\n"
		}
		got := g.raw(t, text+"\r\n")
		header, body, _ := strings.Cut(got, "\r\n\r\n")
		if !strings.HasPrefix(header, "HTTP/1.1 200 ") {
			t.Errorf("HTTP/1.1, announced %s: got %q", announced, got)
			continue
		}
		s := seenIn(t, "HTTP/1.1", response{status: 200, body: body})
		if s.Trailer.Get("X-Checksum") != "7" || len(s.Trailer) != 1 {
			t.Errorf("HTTP/1.1, announced %s: the backend gets the trailers %v, want X-Checksum alone", announced, s.Trailer)
		}
	}

	// In HTTP/2 and HTTP/3, net/http rejects some trailers itself.
	for _, client := range g.versions(t) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, client.base+"/", io.NopCloser(strings.NewReader("hello")))
		must(t, "making a request", err)
		request.Trailer = http.Header{"X-Checksum": {"7"}}
		for _, name := range names[12:] {
			request.Trailer[http.CanonicalHeaderKey(name)] = []string{"evil"}
		}
		got, err := do(client.Client, request)
		must(t, client.name, err)
		s := seenIn(t, client.name, got)
		delete(s.Trailer, "X-Checksum") // not every version supports trailers
		if len(s.Trailer) > 0 {
			t.Errorf("%s: the backend gets the trailers %v", client.name, s.Trailer)
		}
	}

	// Forbidden response trailers are removed.
	text := g.raw(t, "GET /trailing HTTP/1.1\r\nHost: gateway.example\r\nTE: trailers\r\nConnection: close, te\r\n\r\n")
	if _, trailers, _ := strings.Cut(text, "\r\n0\r\n"); strings.TrimSpace(trailers) != "X-Checksum: 7" {
		t.Errorf("HTTP/1.1: the client gets %q, want the trailer X-Checksum alone", text)
	}
	for _, client := range g.versions(t) {
		got := client.ask(t, "GET", "/trailing", "")
		if len(got.trailer) > 1 || len(got.trailer) == 1 && got.trailer.Get("X-Checksum") != "7" || got.body != "hello" {
			t.Errorf("%s: the client gets %q with the trailers %v, want X-Checksum alone", client.name, got.body, got.trailer)
		}
	}
}

// startTrailing starts a backend whose responses contain forbidden trailers.
func startTrailing(t testing.TB) (dial string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "listening", err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096)) // reads the whole request, which is small
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum, Set-Cookie\r\nConnection: close\r\n\r\n"+
				"5\r\nhello\r\n0\r\nX-Checksum: 7\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=evil\r\nConnection: keep-alive\r\n"+
				"Location: /evil\r\nWWW-Authenticate: Basic\r\n\r\n")
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestD5FieldsOfProxiesComeFromTrustedPeersAlone(t *testing.T) {
	t.Parallel()
	dial := startSeeing(t)
	const config = `server: {trusted_proxies: [` + proxyAddress + `]}
keep_fields: [X-Client-IP]
trust_identity: false
routes:
  - {path_prefix: /, backend: web}
  - {path_prefix: /by-address, backend: web, headers: {CF-Connecting-IP: "*"}, name: by-address}
  - {path_prefix: /by-proto, backend: web, headers: {X-Forwarded-Proto: https}, name: by-proto}
  - {path_prefix: /limited, backend: web, rate_limit: {requests: 1, window: 1h, key: "{http.request.header.True-Client-IP}"}}
  - {path_prefix: /limited-by-path, backend: web, rate_limit: {requests: 1, window: 1h, key: "{http.request.header.X-Forwarded-For}"}}
  - {path_prefix: /copied, backend: web, transform: {request: {headers: {set: {X-Copy: "{http.request.header.X-Forwarded-Host}"}}}}}
  - path_prefix: /around
    backend: down
backends:
  - {name: web, dial: ["$DIAL"]}
  - {name: down, dial: ["127.0.0.1:1"], fallback: {backend: web}}
`
	g := startGateway(t, strings.ReplaceAll(config, "$DIAL", dial))
	made := append([]string{
		"X-Real-Ip", "198.51.100.7", "X-Forwarded-Port", "666", "X-Forwarded-For", "198.51.100.7", "X-Forwarded-Host", "evil.test:666",
		"X-Forwarded-Proto", "https", "X-Client-Ip", "198.51.100.7", "X_Real_Ip", "198.51.100.7", "X.Real.Ip", "198.51.100.7",
		"X.Rewrite_Url", "/evil", "Proxy", "http://evil.test",
		"Connection", "X-Real-IP, X-Forwarded-Port",
	}, relayFields...)
	stranger, proxy := clientFrom(t, "127.0.0.1"), clientFrom(t, proxyAddress)

	for _, target := range []string{"/", "/around"} {
		s := seenIn(t, "a stranger's", g.askBy(t, stranger, target, made...))
		for i := 0; i < len(relayFields); i += 2 {
			if values := s.Header[relayFields[i]]; values != nil {
				t.Errorf("%s: a stranger's %s reaches the backend as %q", target, relayFields[i], values)
			}
		}
		for name, want := range map[string]string{
			"X-Real-Ip": "127.0.0.1", "X-Forwarded-Port": fmt.Sprint(g.port), "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": g.address(),
			"X-Forwarded-Proto": "http", "X-Client-Ip": "198.51.100.7", "X_Real_Ip": "", "X.Real.Ip": "",
			"X.Rewrite_Url": "", "Proxy": "",
		} {
			if got := strings.Join(s.Header[name], " and "); got != want {
				t.Errorf("%s: from a stranger, %s is %q, want %q", target, name, got, want)
			}
		}
	}
	if s := seenIn(t, "without a port", g.askBy(t, stranger, "/", "Host", "shop.example.com")); s.Header.Get("X-Forwarded-Port") != "80" {
		t.Errorf("for a host without a port, X-Forwarded-Port is %q, want 80", s.Header.Get("X-Forwarded-Port"))
	}

	s := seenIn(t, "a proxy's", g.askBy(t, proxy, "/", made[:len(made)-len(relayFields)-2]...))
	for name, want := range map[string]string{
		"X-Real-Ip": "198.51.100.7", "X-Forwarded-Port": "666", "X-Forwarded-For": "198.51.100.7, " + proxyAddress,
		"X-Forwarded-Host": "evil.test:666", "X-Forwarded-Proto": "https",
	} {
		if got := strings.Join(s.Header[name], " and "); got != want {
			t.Errorf("from a trusted proxy, %s is %q, want %q", name, got, want)
		}
	}
	s = seenIn(t, "a proxy's", g.askBy(t, proxy, "/", relayFields...))
	for i := 0; i < len(relayFields); i += 2 {
		if got := s.Header.Get(relayFields[i]); got != relayFields[i+1] {
			t.Errorf("a trusted proxy's %s reaches the backend as %q", relayFields[i], got)
		}
	}
	// X-Forwarded-For of a trusted proxy identifies the client, not X-Real-IP.
	s = seenIn(t, "a proxy's", g.askBy(t, proxy, "/", "X-Forwarded-For", "198.51.100.9", "X-Real-IP", "192.0.2.1", "X-Forwarded-Proto", "https"))
	if got := s.Header.Get("X-Real-Ip") + " " + s.Header.Get("X-Forwarded-Port"); got != "198.51.100.9 "+fmt.Sprint(g.port) {
		t.Errorf("for the client of a trusted proxy, address and port are %s", got)
	}

	// Routes and policies do not receive the fields either.
	g.askBy(t, stranger, "/by-address", "CF-Connecting-IP", "192.0.2.1")
	g.askBy(t, stranger, "/by-proto", "X-Forwarded-Proto", "https")
	figures := g.get(t, "/stats?by=route").body
	for _, route := range []string{"by-address", "by-proto"} {
		if strings.Contains(figures, `"`+route+`"`) && !strings.Contains(figures, `"`+route+`":{"requests_count":{"success":0`) {
			t.Errorf("a route is chosen by a stranger's field: %s", figures)
		}
	}
	for target, name := range map[string]string{"/limited": "True-Client-IP", "/limited-by-path": "X-Forwarded-For"} {
		for i, want := range []int{200, 429} {
			if got := g.askBy(t, stranger, target, name, fmt.Sprintf("192.0.2.%d", i)); got.status != want {
				t.Errorf("%s: request %d with a new key gets %d, want %d", target, i, got.status, want)
			}
		}
		if got := g.askBy(t, proxy, target, name, "192.0.2.1"); got.status != 200 {
			t.Errorf("%s: another client of a trusted proxy gets %d, want 200", target, got.status)
		}
	}
	for client, want := range map[*http.Client]string{stranger: "", proxy: "shop.test"} {
		if s := seenIn(t, "copied", g.askBy(t, client, "/copied", "X-Forwarded-Host", "shop.test")); s.Header.Get("X-Copy") != want {
			t.Errorf("a transform copies X-Forwarded-Host as %q, want %q", s.Header.Get("X-Copy"), want)
		}
	}
	if s := seenIn(t, "a proxy's", g.askBy(t, proxy, "/", "Proxy", "http://evil.test")); s.Header["Proxy"] != nil {
		t.Error("a trusted proxy's field Proxy reaches the backend")
	}

	log := g.output.String()
	for _, name := range []string{"X-Forwarded-Prefix", "Forwarded", "X-Host"} {
		if n := strings.Count(log, `"field": "`+name+`"`) + strings.Count(log, `"field":"`+name+`"`); n != 1 {
			t.Errorf("the log names %s %d times, want once", name, n)
		}
	}
	if !strings.Contains(log, "keep_fields") || !strings.Contains(log, "trusted_proxies") {
		t.Error("the log does not say how to keep the fields")
	}

	for _, bad := range []string{"X-Forwarded-For", "X-Reel-IP", "X-Other"} {
		file := writeFile(t, "rgate.yaml", "keep_fields: ["+bad+"]\nroutes: [{path_prefix: /, backend: web}]\nbackends: [{name: web, dial: ['127.0.0.1:1']}]\n")
		if got := rgate(t, nil, "validate", "--config", file, "--adapter", "rgate"); got.code == 0 || !strings.Contains(got.stderr, bad) {
			t.Errorf("keep_fields with %s: code %d, %s", bad, got.code, got.stderr)
		}
	}
}

func TestD5HoldsInASite(t *testing.T) {
	t.Parallel()
	g := launch(t, "Caddyfile", strings.ReplaceAll(`{
	admin localhost:$ADMIN
	servers {
		trusted_proxies static `+proxyAddress+`
	}
}
http://plain.test:$PORT {
	@forwarded header X-Forwarded-Proto https
	redir @forwarded https://shop.test 302
	handle /limited {
		rgate_rate_limit {
			requests 1
			window 1h
			key {header.X-Real-IP}
		}
		reverse_proxy $DIAL
	}
	handle {
		reverse_proxy $DIAL
	}
}
http://both.test:$PORT {
	rgate_rate_limit {
		requests 1
		window 1h
		key {header.X-Forwarded-For}
	}
	rgate {
		keep_fields X-Rewrite-URL
		backend web {
			dial $DIAL
		}
		route / web
	}
}
http://other.test:$PORT {
	reverse_proxy $DIAL
}
`, "$DIAL", startSeeing(t)), nil, "run", "--config", "$FILE")
	stranger, proxy := clientFrom(t, "127.0.0.1"), clientFrom(t, proxyAddress)

	said := append([]string{"Host", "plain.test", "X-Real-Ip", "192.0.2.1", "X-Forwarded-Proto", "https"}, relayFields...)
	s := seenIn(t, "a stranger's", g.askBy(t, stranger, "/", said...))
	for i := 2; i < len(said); i += 2 {
		if values := s.Header[said[i]]; values != nil && said[i] != "X-Forwarded-Proto" || strings.Join(values, "") == "https" {
			t.Errorf("a stranger's %s reaches the backend of a site as %q", said[i], values)
		}
	}
	if got := g.askBy(t, proxy, "/", said...); got.status != 302 {
		t.Errorf("a matcher of a site does not see the fields of a trusted proxy: status %d", got.status)
	}
	s = seenIn(t, "a proxy's", g.askBy(t, proxy, "/", append([]string{"Host", "plain.test"}, relayFields...)...))
	for i := 0; i < len(relayFields); i += 2 {
		if got := s.Header.Get(relayFields[i]); got != relayFields[i+1] {
			t.Errorf("a trusted proxy's %s reaches the backend of a site as %q", relayFields[i], got)
		}
	}
	for i, want := range []int{200, 429} {
		if got := g.askBy(t, stranger, "/limited", "Host", "plain.test", "X-Real-IP", fmt.Sprintf("192.0.2.%d", i)); got.status != want {
			t.Errorf("request %d with a new key gets %d, want %d", i, got.status, want)
		}
	}

	// Forbidden trailers are removed in sites without a gateway, too.
	text := g.raw(t, "POST / HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum, X-Real-IP\r\nConnection: close\r\n\r\n"+
		"5\r\nhello\r\n0\r\nX-Checksum: 7\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
	_, body, _ := strings.Cut(text, "\r\n\r\n")
	if s := seenIn(t, "trailers", response{status: 200, body: body}); len(s.Trailer) != 1 || s.Trailer.Get("X-Checksum") != "7" {
		t.Errorf("the backend of a site gets the trailers %v, want X-Checksum alone", s.Trailer)
	}

	// Fields that a gateway of the site keeps are forwarded. Other sites are unaffected.
	for i, want := range []int{200, 429} {
		got := g.askBy(t, stranger, "/", "Host", "both.test", "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i), "X-Rewrite-URL", "/kept")
		if got.status != want || i == 0 && seenIn(t, "kept", got).Header.Get("X-Rewrite-Url") != "/kept" {
			t.Errorf("request %d before a gateway gets %d and %s, want %d and the field that is kept", i, got.status, got.body, want)
		}
	}
	if s := seenIn(t, "another site's", g.askBy(t, stranger, "/", "Host", "other.test", "X-Real-IP", "192.0.2.1")); s.Header.Get("X-Real-Ip") != "192.0.2.1" {
		t.Errorf("in a site without rgate, X-Real-IP is %q", s.Header.Get("X-Real-Ip"))
	}
}

func TestD15EqualTokensAreOne(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("s", 32)
	g := startGateway(t, `routes:
  - path_prefix: /
    backend: web
    jwt: {algorithms: [HS256], secret: `+secret+`, token_from: ["header:Authorization", "query:token", "cookie:session"]}
  - path_prefix: /hidden
    backend: web
    jwt: {algorithms: [HS256], secret: `+secret+`, token_from: ["header:Authorization", "query:token", "cookie:session"], hide_credentials: true}
backends:
  - {name: web, dial: ["`+startSeeing(t)+`"]}
`)
	token := func(user string) string {
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "scope": "read pay", "exp": time.Now().Add(time.Hour).Unix()}).SignedString([]byte(secret))
		must(t, "signing a token", err)
		return text
	}
	alice, bob := token("alice"), token("bob")
	for _, tc := range []struct {
		target, header, cookie string
		want                   int
	}{
		{"/", alice, "", 200}, {"/?token=" + alice, alice, "", 200}, {"/?token=" + alice, "", alice, 200}, {"/?token=" + alice, alice, alice, 200},
		{"/hidden?token=" + alice, alice, alice, 200},
		{"/?token=" + bob, alice, "", 400}, {"/", alice, bob, 400}, {"/?token=" + alice, bob, alice, 400}, {"/?token=" + alice, "", bob, 400},
		{"/?token=x", alice, "", 400}, {"/", "", "", 401},
	} {
		var headers []string
		if tc.header != "" {
			headers = append(headers, "Authorization", "Bearer "+tc.header)
		}
		if tc.cookie != "" {
			headers = append(headers, "Cookie", "session="+tc.cookie+"; a=b")
		}
		got := g.ask(t, "GET", tc.target, "", headers...)
		if got.status != tc.want {
			t.Errorf("%s: got %d, want %d", tc.target, got.status, tc.want)
			continue
		}
		if tc.want != 200 {
			continue
		}
		s := seenIn(t, tc.target, got)
		if user, scopes := s.Header.Get("X-User-Id"), s.Header.Get("X-Consumer-Scopes"); user != "alice" || scopes != "read pay" || s.Header.Get("X-Consumer-Username") != "" {
			t.Errorf("%s: the backend learns of %q with the scopes %q", tc.target, user, scopes)
		}
		if strings.HasPrefix(tc.target, "/hidden") && strings.Contains(got.body, alice) {
			t.Errorf("%s: a token that is to be hidden reaches the backend: %s", tc.target, got.body)
		}
		if inQuery := strings.Contains(tc.target, "token="); inQuery != (got.header.Get("Cache-Control") == "private") {
			t.Errorf("%s: Cache-Control is %q", tc.target, got.header.Get("Cache-Control"))
		}
	}
}
