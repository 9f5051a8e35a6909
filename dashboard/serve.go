package dashboard

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // for the page's files
	"encoding/base64"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/rgate/rgate/policy"
)

//go:embed page.html
var pageText string

//go:embed style.css
var style string

//go:embed refresh.js
var script string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"pct": percent}).Parse(pageText))

// percent formats a ratio as an SVG length.
func percent(v float64) string { return strconv.FormatFloat(v*100, 'f', 2, 64) + "%" }

// contentPolicy is a Content-Security-Policy that only allows the script and the styles
// of the page.
var contentPolicy = "default-src 'none'; style-src " + hashOf(style) + "; script-src " + hashOf(script) +
	"; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// readTime is the timeout for reading the recorded usage.
const readTime = 10 * time.Second

// ServeHTTP serves the page. Requests for other paths are passed to the next handler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if d.Off() || !d.Serves(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	return d.ServeProtected(w, r, d.serve)
}

// serve responds to an authorized request.
func (d *Dashboard) serve(w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", contentPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Referrer-Policy", "same-origin")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	switch {
	case r.URL.Path != d.Path:
		policy.WriteStatus(w, r, http.StatusNotFound)
		return nil
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		header.Set("Allow", "GET, HEAD")
		policy.WriteStatus(w, r, http.StatusMethodNotAllowed)
		return nil
	}
	a, err := parseParams(r.URL.RawQuery)
	if err != nil {
		policy.WriteBody(w, r, http.StatusBadRequest, "text/plain; charset=utf-8", []byte(err.Error()+"\n"))
		return nil
	}
	body, err := d.render(r.Context(), a)
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	policy.WriteBody(w, r, http.StatusOK, "text/html; charset=utf-8", body)
	return nil
}

// render renders the page. If no usage is recorded or it cannot be read, the page only
// shows the current state.
func (d *Dashboard) render(ctx context.Context, params pageParams) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	now := d.clock()
	f, problem := emptyFigures(params, now, d.zone), "bandwidth is not configured"
	if from := d.account(); from != nil {
		problem = ""
		if err := f.collect(ctx, cachedAccount{from, &d.cache, now}, params); err != nil {
			d.Logger().Warn("reading bandwidth usage failed", zap.Error(err))
			f, problem = emptyFigures(params, now, d.zone), "the usage store is unavailable"
		}
	}
	return d.write(params, f, readLive(d.Gateway, d.log, params), problem)
}

// write executes the template.
func (d *Dashboard) write(params pageParams, f figures, l live, problem string) ([]byte, error) {
	p := present(params, f, l, problem)
	p.Gateway, p.HasLog = d.Gateway, d.log != nil
	p.Style, p.Script = template.CSS(style), template.JS(script) // trusted: embedded in the binary
	if !params.still {
		p.Refresh = max(int(time.Duration(d.Refresh).Seconds()), 1)
	}
	var body bytes.Buffer
	err := pageTemplate.Execute(&body, p)
	return body.Bytes(), err
}
