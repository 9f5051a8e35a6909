package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rgate/rgate/bandwidth/mailtest"
	"github.com/rgate/rgate/internal/testkit"
)

// sizedBackend starts a backend whose response has the size given in the query. It
// returns its address.
func sizedBackend(t testing.TB) string {
	address, _ := testkit.Backend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n, _ := strconv.Atoi(r.URL.Query().Get("bytes"))
		_, _ = w.Write(make([]byte, n))
	})
	return address
}

// quotaPostgres starts an empty PostgreSQL database and returns its URL.
func quotaPostgres(t testing.TB) string {
	t.Helper()
	requireEngine(t)
	cmd := exec.Command("../hack/postgres")
	dieWithTests(cmd)
	input, err := cmd.StdinPipe()
	must(t, "starting PostgreSQL", err)
	output, err := cmd.StdoutPipe()
	must(t, "starting PostgreSQL", err)
	must(t, "starting PostgreSQL, which `make test` installs", cmd.Start())
	t.Cleanup(func() {
		_ = input.Close()
		_ = cmd.Wait() // it exits when its stdin is closed
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	must(t, "reading where PostgreSQL is", err)
	return strings.TrimSpace(line)
}

// mailSettings returns the YAML settings for alerts by mail to a test server.
func mailSettings(s *mailtest.Server) string {
	return fmt.Sprintf("notify: {smtp: {address: %q, ca_file: %q, username: %s, password: \"{env.SMTP_PASSWORD}\", from: rgate@example.com, to: [ops@example.com]}, link: \"https://gw.example.com/dashboard\"}\n",
		s.Address, s.CAFile, mailtest.User)
}

var mailPassword = []string{"SMTP_PASSWORD=" + mailtest.Password}

// metered returns a configuration with a usage store and one backend with a quota.
func metered(t testing.TB, store, policies, quota string, more ...string) string {
	return fmt.Sprintf("bandwidth: {path: /usage, flush_interval: 1s, store: %q%s}\noperations: {path: /gateway}\n%s\nroutes: [{path_prefix: /, backend: web}]\nbackends: [{name: web, dial: [%q], quota: {%s}}]\n",
		store, strings.Join(more, ""), policies, sizedBackend(t), quota)
}

// quotaReport is the gateway's report on one quota.
type quotaReport struct {
	Name, Level, Service, Consumer, Direction, State string
	Allocated, Used                                  int64
	AtLimit                                          string `json:"at_limit"`
	Thresholds                                       []struct {
		Percent    int
		CrossedAt  *time.Time `json:"crossed_at"`
		Deliveries []struct{ Channel, State, Error string }
	}
}

// alerts returns the delivery state of each threshold, such as `80 sent, 90, 100`.
func (q quotaReport) alerts() string {
	var all []string
	for _, threshold := range q.Thresholds {
		text := strconv.Itoa(threshold.Percent)
		for _, d := range threshold.Deliveries {
			text += " " + d.State
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func (g *gateway) quotas(t testing.TB) (all []quotaReport) {
	t.Helper()
	got := g.get(t, "/usage/quotas")
	if err := json.Unmarshal([]byte(got.body), &all); err != nil {
		t.Fatalf("the quotas are %d %q", got.status, got.body)
	}
	return all
}

// onlyQuota returns the only quota. It is empty before the first evaluation.
func (g *gateway) onlyQuota(t testing.TB) (q quotaReport) {
	t.Helper()
	if all := g.quotas(t); len(all) == 1 {
		q = all[0]
	}
	return q
}

// awaitQuota waits for the given usage and alerts of the only quota, and returns its
// report.
func (g *gateway) awaitQuota(t testing.TB, used int64, alerts string) (q quotaReport) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprintf("%d bytes are judged, and the thresholds are %q", used, alerts), func() bool {
		q = g.onlyQuota(t)
		return q.Used == used && q.alerts() == alerts
	})
	return q
}

// download requests a response of n bytes.
func (g *gateway) download(t testing.TB, n int, headers ...string) {
	t.Helper()
	if got := g.ask(t, "GET", fmt.Sprintf("/?bytes=%d", n), "", headers...); got.status != http.StatusOK || len(got.body) != n {
		t.Fatalf("%d bytes: got %d and %d bytes", n, got.status, len(got.body))
	}
}

func mailSubjects(s *mailtest.Server) (subjects []string) {
	for _, m := range s.Messages() {
		subjects = append(subjects, m.Subject)
	}
	return subjects
}

func mustHaveSubjects(t testing.TB, when string, s *mailtest.Server, want ...string) {
	t.Helper()
	month := time.Now().UTC().Format("January 2006")
	for i := range want {
		want[i] = "[rgate] " + strings.ReplaceAll(want[i], "MONTH", month)
	}
	if got := mailSubjects(s); !slices.Equal(got, want) {
		t.Fatalf("%s: the mail is %q, want %q", when, got, want)
	}
}

func TestQuotaIsAnnouncedByMail(t *testing.T) {
	t.Parallel()
	mail := mailtest.Start(t)
	var hooks sync.Map
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		hooks.Store(string(body), true)
	}))
	t.Cleanup(hook.Close)
	config := metered(t, "sqlite://"+t.TempDir()+"/bandwidth.db", strings.Replace(mailSettings(mail), "link:", "webhook: \""+hook.URL+"\", link:", 1), "egress: 1MB")
	g := startGateway(t, config, mailPassword...)

	g.download(t, 799_999)
	g.awaitQuota(t, 799_999, "80, 90, 100")
	mustHaveSubjects(t, "at 79.9 %", mail)
	g.download(t, 1)
	g.awaitQuota(t, 800_000, "80 sent sent, 90, 100")
	const at80, at105 = "web has used 80.0 % of its egress for MONTH", "web has used up its egress for MONTH: 105.0 %"
	mustHaveSubjects(t, "at 80.0 %", mail, at80)
	g.download(t, 250_000)
	if q := g.awaitQuota(t, 1_050_000, "80 sent sent, 90 sent sent, 100 sent sent"); q.State != "over" {
		t.Errorf("at 105 %%: it is %q", q.State)
	}
	mustHaveSubjects(t, "at 105 %", mail, at80, at105)
	last := mail.Messages()[1]
	if !last.TLS || last.User != mailtest.User || !strings.Contains(last.Plain, "1.05 MB (1050000 bytes)") || !strings.Contains(last.HTML, "https://gw.example.com/dashboard") {
		t.Errorf("the mail is %s", last.Undecoded)
	}
	if n := g.metric(t, "rgate_quota_notifications_total", "state", "sent"); n != 4 {
		t.Errorf("the metric counts %v messages, want 4", n)
	}
	if used, limit := g.metric(t, "rgate_quota_used_bytes", "quota", "web"), g.metric(t, "rgate_quota_limit_bytes", "place", "web"); used != 1_050_000 || limit != 1_000_000 {
		t.Errorf("the metrics are %v and %v", used, limit)
	}
	g.signal(t, syscall.SIGTERM)
	if code := g.awaitExit(t); code != 0 {
		t.Fatalf("the gateway exited with %d", code)
	}

	again := startGateway(t, config, mailPassword...)
	again.download(t, 1)
	again.awaitQuota(t, 1_050_001, "80 sent sent, 90 sent sent, 100 sent sent")
	mustHaveSubjects(t, "after a restart", mail, at80, at105)
	n := 0
	hooks.Range(func(body, _ any) bool { n++; return strings.HasPrefix(body.(string), `{"text":"web has used `) })
	if n != 2 {
		t.Errorf("the webhook got %d messages, want 2", n)
	}
	if strings.Contains(g.output.String()+again.output.String(), mailtest.Password) {
		t.Error("the log has the password")
	}
}

// While the mail server is down, requests are served. The message is sent when the server
// is up again, even after a restart of the gateway.
func TestQuotaWithoutAServerOfMail(t *testing.T) {
	t.Parallel()
	mail := mailtest.Start(t)
	mail.Stop()
	config := metered(t, "sqlite://"+t.TempDir()+"/bandwidth.db", mailSettings(mail), "egress: 1MB")
	g := startGateway(t, config, mailPassword...)
	g.download(t, 850_000)
	testkit.Eventually(t, "the mail is tried again", func() bool {
		g.download(t, 1)
		return g.metric(t, "rgate_quota_notifications_total", "state", "retried") >= 2
	})
	testkit.Eventually(t, "it is seen in the health", func() bool {
		body := g.get(t, "/gateway/health").body
		return strings.Contains(body, `{"name":"mail `+mail.Address+`","status":"unhealthy"`) && strings.Contains(body, "connection refused")
	})
	g.signal(t, syscall.SIGTERM)
	g.awaitExit(t)
	mail.Restart()
	again := startGateway(t, config, mailPassword...)
	testkit.Eventually(t, "the mail is delivered", func() bool { return len(mail.Messages()) > 0 })
	testkit.Eventually(t, "that is seen", func() bool { return again.onlyQuota(t).alerts() == "80 sent, 90, 100" })
	if n := len(mail.Messages()); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func TestQuotaMailIsTriedAgain(t *testing.T) {
	t.Parallel()
	mail := mailtest.Start(t)
	mail.Reply("DATA", 451, 2)
	g := startGateway(t, metered(t, "sqlite://$DIR/bandwidth.db", mailSettings(mail), "egress: 1MB"), mailPassword...)
	g.download(t, 850_000)
	g.awaitQuota(t, 850_000, "80 sent, 90, 100")
	mustHaveSubjects(t, "after 451 twice", mail, "web has used 85.0 % of its egress for MONTH")
	if retried, attempts := g.metric(t, "rgate_quota_notifications_total", "state", "retried"), mail.Attempts(); retried != 2 || attempts != 3 {
		t.Errorf("it was tried again %v times, the server saw %d attempts", retried, attempts)
	}
}

// Two gateways share a PostgreSQL database. One of them sends the mail, and both reject
// requests within ten seconds.
func TestQuotaOfTwoGateways(t *testing.T) {
	t.Parallel()
	store, mail := quotaPostgres(t), mailtest.Start(t)
	start := func(node string) *gateway {
		return startGateway(t, metered(t, store, mailSettings(mail), "egress: 1MB, at_limit: block", ", node: "+node), mailPassword...)
	}
	gateways := []*gateway{start("gw-1"), start("gw-2")}
	gateways[0].download(t, 600_000)
	gateways[1].download(t, 450_000)
	over := time.Now()
	for i, g := range gateways {
		testkit.Eventually(t, fmt.Sprintf("gateway %d refuses", i+1), func() bool { return g.get(t, "/?bytes=0").status == http.StatusTooManyRequests })
	}
	if took := time.Since(over); took > 10*time.Second && !raceDetector {
		t.Errorf("it took %v until both refuse", took)
	}
	got := gateways[1].ask(t, "GET", "/", "", "Accept", "application/json")
	retry, _ := strconv.Atoi(got.header.Get("Retry-After"))
	now := time.Now().UTC()
	rest := int(time.Until(time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)).Seconds())
	if got.body != `{"error":"Too Many Requests","status":429}` || retry < rest || retry > rest+30 || got.header.Get("X-Quota-Reset") != got.header.Get("Retry-After") {
		t.Errorf("got %q, %v, want it to be %d s until the next month", got.body, got.header, rest)
	}
	if n := gateways[1].metric(t, "rgate_refused_requests_total", "policy", "quota", "code", "429"); n < 1 {
		t.Errorf("the metric counts %v refusals", n)
	}
	for _, g := range gateways {
		testkit.Eventually(t, "both know that the alert was sent", func() bool {
			q := g.onlyQuota(t)
			return q.alerts() == "80 sent, 90 sent, 100 sent" && q.State == "blocked"
		})
	}
	if subjects := mailSubjects(mail); len(subjects) > 2 { // one if both thresholds were crossed in the same flush
		t.Errorf("the mail is %q", subjects)
	}
	sent := gateways[0].metric(t, "rgate_quota_notifications_total", "state", "sent") + gateways[1].metric(t, "rgate_quota_notifications_total", "state", "sent")
	if int(sent) != len(mail.Messages()) {
		t.Errorf("%v messages were sent, and %d arrived", sent, len(mail.Messages()))
	}
}

// Each consumer has a separate allocation.
func TestQuotaOfConsumers(t *testing.T) {
	t.Parallel()
	const keys = `api_key: {keys: [{name: alice, sha256: 2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90}, {name: bob, sha256: 81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9}], optional: true}`
	g := startGateway(t, metered(t, "sqlite://$DIR/bandwidth.db", keys, "egress: 100KB, per: consumer, at_limit: block, consumers: [{name: bob, egress: 300KB}]"))
	for _, key := range []string{"alice", "bob"} {
		g.download(t, 150_000, "X-API-Key", key)
	}
	g.download(t, 150_000)
	testkit.Eventually(t, "alice is refused", func() bool {
		return g.ask(t, "GET", "/", "", "X-API-Key", "alice").status == http.StatusTooManyRequests
	})
	got := g.ask(t, "GET", "/", "", "X-API-Key", "alice")
	if used, _ := strconv.Atoi(got.header.Get("X-Quota-Used")); got.header.Get("X-Quota-Limit") != "100000" || used < 150_000 {
		t.Errorf("alice: got %v", got.header)
	}
	g.download(t, 1000, "X-API-Key", "bob")
	g.download(t, 1000)
	testkit.Eventually(t, "both are in the report", func() bool {
		all := g.quotas(t)
		return len(all) == 2 && all[0].Consumer == "alice" && all[0].State == "blocked" && all[1].Consumer == "bob" && all[1].Used >= 151_000 && all[1].State == "ok"
	})
}

// Quotas of all levels are enforced. A reload that raises a quota allows requests again.
func TestQuotasOfAllLevels(t *testing.T) {
	t.Parallel()
	config := fmt.Sprintf(`
bandwidth: {path: /usage, flush_interval: 1s, store: "sqlite://$DIR/bandwidth.db"}
quota: {total: 1GB, period: 30d}
groups:
  - path_prefix: /api
    quota: {egress: 100KB, at_limit: block}
    routes: [{path_prefix: /a, backend: web}, {path_prefix: /b, backend: web, quota: {ingress: 50KB, period: day, at_limit: block}}]
routes: [{path_prefix: /other, backend: web}, {path_prefix: /free, backend: web, quota: false}]
backends: [{name: web, dial: [%q], quota: {egress: 10GB, period: week}}]
admin: localhost:$ADMIN
`, sizedBackend(t))
	g := startGateway(t, config)
	for _, path := range []string{"/api/a?bytes=40000", "/api/b?bytes=50000", "/other?bytes=70000", "/free?bytes=1000"} {
		if got := g.get(t, path); got.status != http.StatusOK {
			t.Fatalf("%s: got %d", path, got.status)
		}
	}
	used := func() string {
		var all []string
		for _, q := range g.quotas(t) {
			all = append(all, fmt.Sprintf("%s %s %s %d %s", q.Level, q.Name, q.Direction, q.Used, q.State))
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	await := func(what, want string) {
		t.Helper()
		testkit.Eventually(t, fmt.Sprintf("%s: %s, but %s", what, want, used()), func() bool { return used() == want })
	}
	await("at first", "backend web egress 161000 ok, gateway rgate total 161000 ok, group /api egress 90000 ok, route /api/b ingress 0 ok")
	if got := g.ask(t, "POST", "/api/b", strings.Repeat("x", 50_000)); got.status != http.StatusOK {
		t.Fatalf("got %d", got.status)
	}
	testkit.Eventually(t, "the route is blocked", func() bool { return g.get(t, "/api/b").status == http.StatusTooManyRequests })
	if got := g.get(t, "/api/a?bytes=10000").status; got != http.StatusOK {
		t.Errorf("the route beside it: got %d", got)
	}
	testkit.Eventually(t, "the group is blocked", func() bool { return g.get(t, "/api/a").status == http.StatusTooManyRequests })
	for _, path := range []string{"/other", "/free"} {
		if got := g.get(t, path).status; got != http.StatusOK {
			t.Errorf("%s: got %d", path, got)
		}
	}
	g.write(t, strings.Replace(config, "100KB", "10MB", 1))
	g.reload(t)
	testkit.Eventually(t, "the group is let through", func() bool { return g.get(t, "/api/a").status == http.StatusOK })
	if got := g.get(t, "/api/b").status; got != http.StatusTooManyRequests {
		t.Errorf("the route, after a reload: got %d", got)
	}
}

func TestQuotaSlowsDown(t *testing.T) {
	t.Parallel()
	g := startGateway(t, metered(t, "sqlite://$DIR/bandwidth.db", "", "egress: 100KB, at_limit: throttle, throttle_rate: 50KB"))
	g.download(t, 100_000)
	testkit.Eventually(t, "the limit is seen", func() bool { return g.onlyQuota(t).State == "throttled" })
	began := time.Now()
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() { g.download(t, 30_000) })
	}
	all.Wait()
	// The burst is a quarter of a second, so part of the 60 KB is sent immediately.
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("60 KB at 50 KB per second took %v", took)
	}
}

func TestTestMail(t *testing.T) {
	t.Parallel()
	mail := mailtest.Start(t)
	config := mailSettings(mail) + "routes: [{path_prefix: /, backend: web}]\nbackends: [{name: web, dial: [\"127.0.0.1:1\"]}]\n"
	file := writeFile(t, "rgate.yaml", config)
	done := rgate(t, mailPassword, "test-mail", "-c", file)
	for _, want := range []string{"mail " + mail.Address, "STARTTLS ", "authentication  as rgate by PLAIN", "recipient       ops@example.com", "The test message has been sent.\n"} {
		if done.code != 0 || !strings.Contains(done.stdout, want) {
			t.Errorf("got %d, %q and %q, want %q", done.code, done.stdout, done.stderr, want)
		}
	}
	if got := mailSubjects(mail); !slices.Equal(got, []string{"[rgate] This is a test of rgate's messages about quotas"}) {
		t.Errorf("the mail is %q", got)
	}
	done = rgate(t, []string{"SMTP_PASSWORD=wrong"}, "test-mail", "-c", file)
	if done.code != 1 || !strings.Contains(done.stderr, "check username and password") || !strings.Contains(done.stdout, "FAILED          authentication as rgate: 535") {
		t.Errorf("a wrong password: got %d, %q and %q", done.code, done.stdout, done.stderr)
	}
	done = rgate(t, nil, "test-mail", "-c", file)
	if done.code != 1 || !strings.Contains(done.stderr, "smtp.password has an unknown or empty placeholder") {
		t.Errorf("without a password: got %d and %q", done.code, done.stderr)
	}
}
