package dashboard

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

var update = flag.Bool("update", false, "update the pictures in docs/images")

// serve serves a dashboard on a loopback port.
func serve(t testing.TB, d *Dashboard) (origin string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := d.serve(w, r); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// textContrast returns the texts of the page whose contrast ratio to the background is
// less than 4.5, with the ratio.
const textContrast = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
	const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
	const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
	const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
	const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), bad = [];
	let count = 0;
	for (let n; (n = texts.nextNode());) {
		const e = n.parentElement, s = getComputedStyle(e);
		if (!n.data.trim() || !e.getClientRects().length || ["STYLE", "SCRIPT", "NOSCRIPT", "title"].includes(e.tagName)) continue;
		count++;
		const a = luminance(rgba(e.tagName === "text" ? s.fill : s.color)) + 0.05, b = luminance(behind(e)) + 0.05;
		const contrast = Math.max(a / b, b / a);
		if (contrast < 4.5) bad.push(n.data.trim() + " " + contrast.toFixed(2));
	}
	return { count, bad };
})()`

// everyDetail opens all details elements.
const everyDetail = `document.querySelectorAll("details").forEach((d) => { d.open = true; })`

func (p *tab) checkContrast() {
	p.t.Helper()
	var got struct {
		Count int
		Bad   []string
	}
	p.eval(everyDetail, nil)
	p.eval(textContrast, &got)
	if got.Count < 100 || len(got.Bad) > 0 {
		p.t.Errorf("of %d texts, these stand out too little: %q", got.Count, got.Bad)
	}
}

// checkWidth fails the test if the page is wider than the viewport. Elements with their
// own scroll bar may be wider.
func (p *tab) checkWidth(width int) {
	p.t.Helper()
	var got struct {
		Width int
		Wide  []string
	}
	p.eval(`({ width: document.documentElement.scrollWidth, wide: [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll") && !(e instanceof SVGElement) && !e.closest(".away")).map((e) => e.tagName + "." + e.className) })`, &got)
	if got.Width > width || len(got.Wide) > 0 {
		p.t.Errorf("the page is %d wide in a window of %d: %q", got.Width, width, got.Wide)
	}
}

func TestInBrowser(t *testing.T) {
	d := demoDashboard(t, demoLedger(t, 7*time.Hour))
	origin := serve(t, d)
	b := startBrowser(t)
	for _, scheme := range []string{"light", "dark"} {
		page := b.open(scheme, 1360, 900, true)
		page.visit(origin + "/dashboard?range=6h")
		var background string
		page.eval("getComputedStyle(document.body).backgroundColor", &background)
		if want := map[string]string{"light": "rgb(244, 245, 247)", "dark": "rgb(13, 17, 22)"}[scheme]; background != want {
			t.Errorf("%s: the background is %s", scheme, background)
		}
		if *update {
			// Replace the path of the store, which differs in each run.
			page.eval("for (const e of document.querySelectorAll('.health span')) e.textContent = e.textContent.replace(/sqlite .*/, 'sqlite /var/lib/rgate/bandwidth.db')", nil)
			file := filepath.Join("..", "docs", "images", "dashboard-"+scheme+".png")
			if err := os.WriteFile(file, smaller(t, page.picture(0)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		page.checkWidth(1360)
		page.checkContrast()
		page.quiet(origin)

		narrow := b.open(scheme, 360, 740, true)
		narrow.visit(origin + "/dashboard?range=6h")
		narrow.checkWidth(360)
		narrow.checkContrast()
		narrow.checkWidth(360)
		narrow.quiet(origin)
	}
}

// Without JavaScript, the pictures, links and form work, and the page reloads
// automatically.
func TestInBrowserWithoutScripts(t *testing.T) {
	origin := serve(t, demoDashboard(t, demoLedger(t, 2*time.Hour)))
	page := startBrowser(t).open("light", 800, 600, false)
	page.visit(origin + "/dashboard")
	var got struct {
		Paths, Rows, Links int
		Refresh            string
	}
	page.eval(`({
		paths: [...document.querySelectorAll(".plot path")].filter((p) => p.getBBox().width > 0).length,
		rows: document.querySelectorAll("tbody tr").length,
		links: document.querySelectorAll("nav a").length,
		refresh: document.querySelector("meta[http-equiv=refresh]")?.content,
	})`, &got)
	if got.Paths < 10 || got.Rows < 100 || got.Links != len(timeRanges) || got.Refresh != "60" {
		t.Errorf("the page has %+v", got)
	}
	page.eval(`(document.querySelector("select[name=service]").value = "images", document.forms[0].requestSubmit())`, nil)
	page.until("the form is submitted", `location.search.includes("service=images") && document.querySelector("select[name=service]")?.value === "images"`)
	page.quiet(origin)
}

// With JavaScript, the content is updated in place. Open details remain open, and the
// focus is kept. Hidden tabs and paused pages send no requests.
func TestInBrowserRefreshes(t *testing.T) {
	d := demoDashboard(t, demoLedger(t, 2*time.Hour))
	d.Refresh = caddy.Duration(time.Second)
	var asked atomic.Int64
	d.clock = func() time.Time { return demoNow.Add(time.Duration(asked.Add(1)) * time.Second) }
	down := &atomic.Bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if err := d.serve(w, r); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	b := startBrowser(t)
	page := b.open("light", 1000, 800, true)
	page.visit(server.URL + "/dashboard")
	page.eval(`(() => { const d = document.getElementById("latency-d"); d.open = true; d.querySelector("summary").focus(); window.old = document.getElementById("main"); })()`, nil)
	page.until("it refreshes itself", `document.getElementById("main") !== window.old && !document.getElementById("clock").textContent.includes("14:32:41")`)
	page.until("what was open is open and has the focus", `document.getElementById("latency-d").open && document.activeElement === document.querySelector("#latency-d summary")`)
	page.quiet(server.URL)
	down.Store(true)
	page.until("it says that it is old", `document.getElementById("stale").textContent.includes("status 503")`)
	down.Store(false)
	page.until("it is new again", `document.getElementById("stale").textContent === ""`)

	still := b.open("light", 1000, 800, true)
	still.visit(server.URL + "/dashboard?refresh=off")
	var scripts int
	still.eval(`document.scripts.length + document.querySelectorAll("meta[http-equiv=refresh]").length`, &scripts)
	if scripts != 0 {
		t.Error("a page that is held still has a script, or loads itself")
	}
}

// All controls can be reached with the keyboard, in document order, and have a visible
// focus.
func TestInBrowserByKeyboard(t *testing.T) {
	origin := serve(t, demoDashboard(t, demoLedger(t, 2*time.Hour)))
	page := startBrowser(t).open("light", 1000, 800, true)
	page.visit(origin + "/dashboard?refresh=off")
	var want []string
	page.eval(`[...document.querySelectorAll("a, select, button, summary, [tabindex='0']")].filter((e) => e.checkVisibility() && (!e.closest("details:not([open])") || e.tagName === "SUMMARY")).map((e) => e.tagName + " " + (e.getAttribute("aria-labelledby") || e.textContent.trim().slice(0, 30)))`, &want)
	if len(want) < 20 {
		t.Fatalf("there are only %d: %q", len(want), want)
	}
	for i, w := range want {
		for _, kind := range []string{"keyDown", "keyUp"} {
			page.do("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}, nil)
		}
		var got struct{ Name, Outline string }
		page.eval(`(() => { const e = document.activeElement; return { name: e.tagName + " " + (e.getAttribute("aria-labelledby") || e.textContent.trim().slice(0, 30)), outline: getComputedStyle(e).outlineStyle } })()`, &got)
		if got.Name != w || got.Outline == "none" {
			t.Fatalf("after Tab number %d, the focus is on %q with outline %s, want %q", i+1, got.Name, got.Outline, w)
		}
	}
}
