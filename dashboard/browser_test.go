package dashboard

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rgate/rgate/internal/testkit"
)

// browser is a headless Chromium, controlled through pipes with the DevTools protocol.
type browser struct {
	t    testing.TB
	cmd  *exec.Cmd
	send io.WriteCloser

	mu      sync.Mutex
	last    int                       // guarded by mu
	waiting map[int]chan message      // by command ID; guarded by mu
	events  map[string]chan<- message // by session ID; guarded by mu
	gone    chan struct{}             // closed when the browser has exited
}

// message is a command, a response or an event of the DevTools protocol.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// browserPatience is the timeout of all waits.
const browserPatience = 30 * time.Second

// startBrowser starts Chromium. It is stopped at the end of the test.
func startBrowser(t testing.TB) *browser {
	t.Helper()
	path := testkit.RequireProgram(t, "chromium", "chromium-browser", "google-chrome")
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + filepath.Join(t.TempDir(), "profile"), "--hide-scrollbars", "--no-first-run",
		"--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync", "--mute-audio", "--font-render-hinting=none",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox") // Chromium does not support the sandbox as root
	}
	b := &browser{t: t, cmd: exec.Command(path, args...), send: ourOut, waiting: make(map[int]chan message), events: make(map[string]chan<- message), gone: make(chan struct{})}
	b.cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	if err := b.cmd.Start(); err != nil {
		t.Fatalf("starting chromium: %v", err)
	}
	theirIn.Close()
	theirOut.Close()
	go b.read(ourIn)
	t.Cleanup(func() {
		_ = b.call("", "Browser.close", nil, nil) // Chromium may exit before it responds
		ended := make(chan struct{})
		go func() { _ = b.cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(browserPatience):
			_ = b.cmd.Process.Kill()
			<-ended
		}
		ourOut.Close()
		<-b.gone
	})
	return b
}

// read dispatches the browser's messages until the browser exits.
func (b *browser) read(from io.ReadCloser) {
	defer close(b.gone)
	defer from.Close()
	reader := bufio.NewReader(from)
	for {
		text, err := reader.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		responses, event := b.waiting[m.ID], b.events[m.Session]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case m.ID != 0 && responses != nil:
			responses <- m
		case m.ID == 0 && event != nil:
			event <- m
		}
	}
}

// call sends a command and waits for its response.
func (b *browser) call(session, method string, params, result any) error {
	responses := make(chan message, 1)
	encoded, err := json.Marshal(params)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.last++
	m := message{ID: b.last, Session: session, Method: method, Params: encoded}
	if params == nil {
		m.Params = nil
	}
	b.waiting[m.ID] = responses
	text, err := json.Marshal(m)
	if err == nil {
		_, err = b.send.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case got := <-responses:
		if got.Error != nil {
			return errors.New(method + ": " + got.Error.Message)
		}
		if result != nil {
			return json.Unmarshal(got.Result, result)
		}
		return nil
	case <-b.gone:
		return errors.New(method + ": chromium has ended")
	case <-time.After(browserPatience):
		return errors.New(method + ": chromium does not respond")
	}
}

// tab is an open tab of the browser.
type tab struct {
	*browser
	session string
	loaded  chan struct{}

	seen struct {
		sync.Mutex
		troubles []string // console errors and warnings
		requests []string // requested URLs
	}
}

// open opens an empty tab with a viewport of the given size. scheme is light or dark.
func (b *browser) open(scheme string, width, height int, scripts bool) *tab {
	b.t.Helper()
	page := &tab{browser: b, loaded: make(chan struct{}, 16)}
	var target struct{ TargetID, SessionID string }
	b.must("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.must("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	page.session = target.SessionID
	events := make(chan message, 1000)
	b.mu.Lock()
	b.events[page.session] = events
	b.mu.Unlock()
	go page.watch(events)
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		page.do(domain+".enable", nil, nil)
	}
	page.do("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	page.do("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	if !scripts {
		page.do("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	}
	return page
}

func (b *browser) must(session, method string, params, result any) {
	b.t.Helper()
	if err := b.call(session, method, params, result); err != nil {
		b.t.Fatal(err)
	}
}

func (p *tab) do(method string, params, result any) {
	p.t.Helper()
	p.must(p.session, method, params, result)
}

// watch records console messages and requests of the page.
func (p *tab) watch(events <-chan message) {
	for {
		select {
		case <-p.gone:
			return
		case m := <-events:
			p.seen.Lock()
			switch m.Method {
			case "Page.loadEventFired":
				p.loaded <- struct{}{}
			case "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded":
				p.seen.troubles = append(p.seen.troubles, string(m.Params))
			case "Network.requestWillBeSent":
				var sent struct{ Request struct{ URL string } }
				_ = json.Unmarshal(m.Params, &sent)
				p.seen.requests = append(p.seen.requests, sent.Request.URL)
			}
			p.seen.Unlock()
		}
	}
}

// visit loads a URL.
func (p *tab) visit(url string) {
	p.t.Helper()
	p.do("Page.navigate", map[string]any{"url": url}, nil)
	select {
	case <-p.loaded:
	case <-time.After(browserPatience):
		p.t.Fatalf("%s does not load", url)
	}
}

// eval evaluates an expression in the page and decodes its value into into. It awaits
// promises.
func (p *tab) eval(expression string, into any) {
	p.t.Helper()
	var got struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	p.do("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &got)
	if got.ExceptionDetails != nil {
		p.t.Fatalf("in the page: %s", got.ExceptionDetails)
	}
	if into != nil {
		if err := json.Unmarshal(got.Result.Value, into); err != nil {
			p.t.Fatalf("reading %s: %v", got.Result.Value, err)
		}
	}
}

// until waits until a JavaScript expression is true.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	testkit.Eventually(p.t, what, func() (holds bool) {
		p.eval("!!("+expression+")", &holds)
		return holds
	})
}

// picture returns a screenshot of the whole page, or of its first height pixels.
func (p *tab) picture(height int) []byte {
	p.t.Helper()
	var shot struct{ Data string }
	var size struct {
		CSSContentSize struct{ Width, Height float64 }
	}
	p.do("Page.getLayoutMetrics", nil, &size)
	if height > 0 {
		size.CSSContentSize.Height = float64(height)
	}
	p.do("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true, "optimizeForSpeed": false, "clip": map[string]any{
		"x": 0, "y": 0, "width": size.CSSContentSize.Width, "height": size.CSSContentSize.Height, "scale": 1,
	}}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	return png
}

// smaller re-encodes a PNG with its 256 most frequent colors.
func smaller(t testing.TB, encoded []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[color.Color]int)
	bounds := full.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			counts[full.At(x, y)]++
		}
	}
	colours := slices.Collect(maps.Keys(counts))
	slices.SortFunc(colours, func(a, b color.Color) int {
		return cmp.Or(counts[b]-counts[a], cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	palette := color.Palette(colours[:min(len(colours), 256)])
	nearest := make(map[color.Color]uint8)
	for _, c := range colours {
		nearest[c] = uint8(palette.Index(c))
	}
	reduced := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			reduced.SetColorIndex(x, y, nearest[full.At(x, y)])
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, reduced); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// quiet fails the test if the console has messages or if a requested URL does not begin
// with origin.
func (p *tab) quiet(origin string) {
	p.t.Helper()
	p.seen.Lock()
	defer p.seen.Unlock()
	for _, trouble := range p.seen.troubles {
		p.t.Errorf("the console says: %s", trouble)
	}
	for _, url := range p.seen.requests {
		if !strings.HasPrefix(url, origin) && !strings.HasPrefix(url, "data:") {
			p.t.Errorf("the page loads %s", url)
		}
	}
	if len(p.seen.requests) == 0 {
		p.t.Error("nothing was loaded")
	}
}
