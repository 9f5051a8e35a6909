// Package cors implements the cors policy (Cross-Origin Resource Sharing).
package cors

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/net/http/httpguts"

	"github.com/rgate/rgate/internal/httpx"
	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(CORS))
	httpcaddyfile.RegisterHandlerDirective("rgate_cors", policy.Directive[CORS])
}

// CORS is a handler that lets pages of other origins read responses and send requests
// that browsers otherwise block (https://fetch.spec.whatwg.org/#http-cors-protocol).
//
// Preflight requests are OPTIONS requests with Access-Control-Request-Method. The handler
// responds to them with 204 and never forwards them to the backend. If the origin, the
// method or a header field is not allowed, the response has no CORS fields and the
// browser does not send the request.
//
// The handler removes the backend's CORS fields from responses. Responses that depend on
// the origin have `Vary: Origin`.
//
// CORS does not block requests: requests of other origins are served, but their pages
// cannot read the response.
type CORS struct {
	policy.Base

	// The allowed origins. Required. Each is one of:
	//
	// - an origin, such as `https://app.example.com` or `http://localhost:8080`
	// - `https://*.example.com`, which matches all subdomains at any depth, but not
	//   example.com itself
	// - a regular expression after a tilde, such as `~https://app-\d+\.example\.com`,
	//   which must match the whole origin
	// - `null`, the origin of sandboxed frames and local files. Any page can have this
	//   origin; it cannot be combined with `allow_credentials`.
	// - `*`, which matches every origin and must be the only element
	AllowedOrigins []string `json:"allowed_origins,omitempty" caddyfile:"arg"`

	// The allowed methods, in upper case. Default: GET, HEAD, POST, PUT, PATCH and
	// DELETE.
	AllowedMethods []string `json:"allowed_methods,omitempty"`

	// The request header fields that are allowed in addition to the CORS-safelisted ones.
	// Default: `*`, all fields that the browser requests.
	AllowedHeaders []string `json:"allowed_headers,omitempty"`

	// The response header fields that pages may read in addition to the CORS-safelisted
	// ones. `*` means all fields and cannot be combined with `allow_credentials`. Default:
	// none.
	ExposedHeaders []string `json:"exposed_headers,omitempty"`

	// Whether browsers may send credentials such as cookies, and pages may read the
	// responses to these requests. Invalid with origins that match any page. Default:
	// false.
	AllowCredentials bool `json:"allow_credentials,omitempty"`

	// The maximum time that browsers cache the response to a preflight request, in whole
	// seconds. Browsers cap it, for example at two hours. Default: 0, the browser's
	// default of five seconds.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// Whether public websites may access this server in a private network
	// (https://wicg.github.io/private-network-access/). Default: false.
	AllowPrivateNetwork bool `json:"allow_private_network,omitempty"`

	origins                               *origins
	headers                               map[string]bool // in lower case; nil for all
	methodsLine, headersLine, exposedLine string
	maxAgeLine, varyLine                  string
}

// CaddyModule returns the Caddy module information.
func (*CORS) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_cors",
		New: func() caddy.Module { return new(CORS) },
	}
}

// Provision sets defaults and parses the origins.
func (p *CORS) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "cors"); err != nil {
		return err
	}
	if err := p.Check(); err != nil || p.Off() {
		return err
	}
	p.origins, _, _ = parseOrigins(p.AllowedOrigins) // cannot fail: Check has parsed them
	if len(p.AllowedMethods) == 0 {
		p.AllowedMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	}
	if len(p.AllowedHeaders) > 0 && p.AllowedHeaders[0] != "*" {
		p.headers = make(map[string]bool, len(p.AllowedHeaders))
		for _, name := range p.AllowedHeaders {
			p.headers[strings.ToLower(name)] = true
		}
		p.headersLine = strings.Join(p.AllowedHeaders, ", ")
	}
	p.methodsLine = strings.Join(p.AllowedMethods, ", ")
	p.exposedLine = strings.Join(p.ExposedHeaders, ", ")
	if p.MaxAge > 0 {
		p.maxAgeLine = strconv.FormatInt(int64(time.Duration(p.MaxAge)/time.Second), 10)
	}
	p.varyLine = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
	if p.AllowPrivateNetwork {
		p.varyLine += ", Access-Control-Request-Private-Network"
	}
	return nil
}

// Check returns the first invalid option as an *options.Error.
func (p *CORS) Check() error {
	if p.Off() {
		return nil
	}
	return cmp.Or(p.checkOrigins(), p.checkMethods(), p.checkHeaders(), p.checkExposed(), p.checkMaxAge())
}

// Validate implements caddy.Validator.
func (p *CORS) Validate() error { return p.Check() }

func (p *CORS) checkOrigins() error {
	if len(p.AllowedOrigins) == 0 {
		return options.Errorf("allowed_origins", "allowed_origins is required: list origins such as https://app.example.com, or * for all")
	}
	all, i, err := parseOrigins(p.AllowedOrigins)
	switch {
	case err != nil:
		return options.Errorf("allowed_origins["+strconv.Itoa(i)+"]", "%v", err)
	case p.AllowCredentials && all.unbounded():
		return options.Errorf("allow_credentials", "allow_credentials and allowed_origins %s cannot be combined, because any website could send requests as the user: list the origins or remove allow_credentials",
			strings.Join(p.AllowedOrigins, " "))
	}
	return nil
}

func (p *CORS) checkMethods() error {
	for i, method := range p.AllowedMethods {
		switch {
		case !httpguts.ValidHeaderFieldName(method):
			return options.Errorf("allowed_methods["+strconv.Itoa(i)+"]", "invalid method %q: must be a name such as GET", method)
		case method == "*":
			return options.Errorf("allowed_methods["+strconv.Itoa(i)+"]", "invalid method *: list the methods, such as GET, POST and DELETE")
		case method != strings.ToUpper(method):
			return options.Errorf("allowed_methods["+strconv.Itoa(i)+"]", "invalid method %q: must be in upper case: use %s", method, strings.ToUpper(method))
		}
	}
	return nil
}

func (p *CORS) checkHeaders() error {
	for i, name := range p.AllowedHeaders {
		if err := checkFieldName("allowed_headers", i, name, len(p.AllowedHeaders)); err != nil {
			return err
		}
	}
	return nil
}

func (p *CORS) checkExposed() error {
	for i, name := range p.ExposedHeaders {
		if err := checkFieldName("exposed_headers", i, name, len(p.ExposedHeaders)); err != nil {
			return err
		}
		if name == "*" && p.AllowCredentials {
			return options.Errorf("exposed_headers["+strconv.Itoa(i)+"]", "exposed_headers * and allow_credentials cannot be combined: list the header fields")
		}
	}
	return nil
}

// checkFieldName validates one of several header field names. `*` must be the only name.
func checkFieldName(option string, i int, name string, count int) error {
	switch {
	case name == "*" && count > 1:
		return options.Errorf(option+"["+strconv.Itoa(i)+"]", "* and names cannot be combined in %s: remove * or the names", option)
	case !httpguts.ValidHeaderFieldName(name):
		return options.Errorf(option+"["+strconv.Itoa(i)+"]", "invalid header field name %q: use a name such as X-Request-ID", name)
	}
	return nil
}

func (p *CORS) checkMaxAge() error {
	if age := time.Duration(p.MaxAge); age < 0 || age%time.Second != 0 {
		return options.Errorf("max_age", "invalid max_age %s: must not be negative or have fractions of a second: use a duration such as 10m", age)
	}
	return nil
}

// ServeHTTP responds to preflight requests and forwards all other requests.
func (p *CORS) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	if r.Method == http.MethodOptions && len(r.Header["Access-Control-Request-Method"]) > 0 {
		p.servePreflight(w, r)
		return nil
	}
	hw := httpx.NewHeaderWriter(w, p, p.allowedOrigin(r, r.Method))
	err := next.ServeHTTP(hw, r)
	hw.Close()
	return err
}

// allowedOrigin returns the value of Access-Control-Allow-Origin for a request. It
// returns an empty string if the origin or the method is not allowed.
func (p *CORS) allowedOrigin(r *http.Request, method string) string {
	if p.origins.any && p.allowsMethod(method) {
		return "*" // constant, so that a cached response is valid for all pages
	}
	if said := r.Header["Origin"]; len(said) == 1 && p.origins.allow(said[0]) && p.allowsMethod(method) {
		return said[0]
	}
	return ""
}

func (p *CORS) allowsMethod(method string) bool {
	return method == http.MethodOptions || slices.Contains(p.AllowedMethods, method)
}

// servePreflight responds to a preflight request.
func (p *CORS) servePreflight(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	removeCORS(header)
	header.Add("Vary", p.varyLine)
	method, wanted := r.Header.Get("Access-Control-Request-Method"), r.Header["Access-Control-Request-Headers"]
	if origin := p.allowedOrigin(r, method); origin != "" && p.allowsHeaders(wanted) {
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Methods", p.methodsLine)
		if p.headers != nil {
			header.Set("Access-Control-Allow-Headers", p.headersLine)
		} else if len(wanted) > 0 {
			header.Set("Access-Control-Allow-Headers", strings.Join(wanted, ", "))
		}
		if p.AllowCredentials {
			header.Set("Access-Control-Allow-Credentials", "true")
		}
		if p.MaxAge > 0 {
			header.Set("Access-Control-Max-Age", p.maxAgeLine)
		}
		if p.AllowPrivateNetwork && r.Header.Get("Access-Control-Request-Private-Network") == "true" {
			header.Set("Access-Control-Allow-Private-Network", "true")
		}
	} else if c := p.Logger().Check(zapcore.DebugLevel, "preflight request not allowed"); c != nil {
		c.Write(zap.Strings("origin", r.Header["Origin"]), zap.String("method", method), zap.Strings("headers", wanted))
	}
	w.WriteHeader(http.StatusNoContent)
}

// allowsHeaders reports whether all header fields in a list of comma-separated values are
// allowed.
func (p *CORS) allowsHeaders(wanted []string) bool {
	if p.headers == nil {
		return true
	}
	for _, line := range wanted {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.Trim(name, " \t"); name != "" && !p.headers[strings.ToLower(name)] {
				return false
			}
		}
	}
	return true
}

// EditHeader replaces the backend's CORS fields. origin is empty if the page may not read
// the response.
func (p *CORS) EditHeader(header http.Header, origin string, values *httpx.FieldValues) {
	removeCORS(header)
	if !p.origins.any {
		addVary(header, "Origin", values)
	}
	if origin == "" {
		return
	}
	header["Access-Control-Allow-Origin"] = values.Of(origin)
	if p.AllowCredentials {
		header["Access-Control-Allow-Credentials"] = values.Of("true")
	}
	if p.exposedLine != "" {
		header["Access-Control-Expose-Headers"] = values.Of(p.exposedLine)
	}
}

// removeCORS removes the CORS fields of a response. Direct lookups of the common fields
// are faster than a loop over the whole header.
func removeCORS(header http.Header) {
	found := false
	for _, name := range [...]string{
		"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Allow-Methods",
		"Access-Control-Allow-Headers", "Access-Control-Expose-Headers",
	} {
		if _, ok := header[name]; ok {
			delete(header, name)
			found = true
		}
	}
	if found { // the other fields have no effect without these
		delete(header, "Access-Control-Max-Age")
		delete(header, "Access-Control-Allow-Private-Network")
	}
}

// addVary adds a request header field to Vary unless Vary already contains it.
func addVary(header http.Header, field string, values *httpx.FieldValues) {
	lines := header["Vary"]
	if len(lines) == 0 {
		header["Vary"] = values.Of(field)
		return
	}
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.Trim(name, " \t"); name == "*" || strings.EqualFold(name, field) {
				return
			}
		}
	}
	header["Vary"] = append(lines[:len(lines):len(lines)], field)
}

// Interface guards
var (
	_ caddy.Provisioner = (*CORS)(nil)
	_ caddy.Validator   = (*CORS)(nil)
	_ policy.Module     = (*CORS)(nil)
)

// RequestFields implements trust.FieldReader.
func (p *CORS) RequestFields() []string { return p.AllowedHeaders }
