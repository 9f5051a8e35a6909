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
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(CORS))
	httpcaddyfile.RegisterHandlerDirective("rgate_cors", policy.Directive[CORS])
}

// CORS is a policy that lets the pages of other origins read what is answered, and
// send what browsers do not send to other origins unasked (https://fetch.spec.whatwg.org/#http-cors-protocol).
//
// Preflights, which are OPTIONS requests with Access-Control-Request-Method, are
// answered with 204 before anything else looks at them, and never sent on. If the
// origin, the method or a header field is not allowed, the answer says nothing of
// CORS, and the browser does not send the request that it asked for.
//
// What the backend says of CORS is removed from its responses. Responses that are
// not the same for all origins have `Vary: Origin`.
//
// Requests of origins that are not allowed are served all the same: their pages
// cannot read the response. CORS does not keep requests away.
type CORS struct {
	policy.Base

	// The origins that are allowed. Required. Each is one of:
	//
	// - an origin, such as `https://app.example.com` or `http://localhost:8080`
	// - `https://*.example.com` for all subdomains, however deep, but not for
	//   example.com itself
	// - a regular expression after a tilde, such as `~https://app-\d+\.example\.com`,
	//   which has to match the origin as a whole
	// - `null`, the origin of sandboxed frames and of files, which any page can have;
	//   not with `allow_credentials`
	// - `*` alone: every origin
	AllowedOrigins []string `json:"allowed_origins,omitempty" caddyfile:"arg"`

	// The methods that are allowed, in upper case. Default: GET, HEAD, POST, PUT,
	// PATCH and DELETE.
	AllowedMethods []string `json:"allowed_methods,omitempty"`

	// The header fields of requests that are allowed beside those that always are.
	// Default: `*`, whatever the browser asks for.
	AllowedHeaders []string `json:"allowed_headers,omitempty"`

	// The header fields of responses that pages may read beside those that they
	// always may. `*`, without credentials, are all. Default: none.
	ExposedHeaders []string `json:"exposed_headers,omitempty"`

	// Whether browsers may send cookies and other credentials along, and pages read
	// what they are answered. Invalid with origins that let in any page. Default:
	// false.
	AllowCredentials bool `json:"allow_credentials,omitempty"`

	// How long browsers may remember the answer to a preflight, in whole seconds;
	// they have an upper bound of their own, such as two hours. Default: 0, which
	// leaves it to the browser: five seconds.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// Whether pages of the public Internet may reach this server in a private
	// network (https://wicg.github.io/private-network-access/). Default: false.
	AllowPrivateNetwork bool `json:"allow_private_network,omitempty"`

	origins                               *origins
	headers                               map[string]bool // in lower case; nil: all
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

// Provision fills in the defaults.
func (p *CORS) Provision(ctx caddy.Context) error {
	if err := p.Start(ctx, "cors"); err != nil {
		return err
	}
	if err := p.Check(); err != nil || p.Off() {
		return err
	}
	p.origins, _, _ = parseOrigins(p.AllowedOrigins) // Check has no complaint
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

// Check reports the first thing wrong with the options, and what would be right.
// The error has a method Field, which names the option.
func (p *CORS) Check() error {
	if p.Off() {
		return nil
	}
	return cmp.Or(p.checkOrigins(), p.checkMethods(), p.checkHeaders(), p.checkExposed(), p.checkMaxAge())
}

// Validate does what Check does, for Caddy.
func (p *CORS) Validate() error { return p.Check() }

func (p *CORS) checkOrigins() error {
	if len(p.AllowedOrigins) == 0 {
		return policy.Optionf("allowed_origins", "no origin is allowed: name those whose pages shall read the responses, such as https://app.example.com, or * for all")
	}
	all, i, err := parseOrigins(p.AllowedOrigins)
	switch {
	case err != nil:
		return policy.Optionf("allowed_origins["+strconv.Itoa(i)+"]", "%v", err)
	case p.AllowCredentials && all.unbounded():
		return policy.Optionf("allow_credentials", "allow_credentials with %s would let the pages of anybody act as the user, and browsers refuse it: name the origins, or do not allow credentials",
			strings.Join(p.AllowedOrigins, " "))
	}
	return nil
}

func (p *CORS) checkMethods() error {
	for i, method := range p.AllowedMethods {
		switch {
		case !httpguts.ValidHeaderFieldName(method):
			return policy.Optionf("allowed_methods["+strconv.Itoa(i)+"]", "%q is not a method: use those such as GET and POST", method)
		case method == "*":
			return policy.Optionf("allowed_methods["+strconv.Itoa(i)+"]", "* is not a method: name those that are allowed, such as GET, POST and DELETE")
		case method != strings.ToUpper(method):
			return policy.Optionf("allowed_methods["+strconv.Itoa(i)+"]", "method %q is not in upper case: use %s", method, strings.ToUpper(method))
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
			return policy.Optionf("exposed_headers["+strconv.Itoa(i)+"]", "exposed_headers * means nothing to browsers that send credentials: name the header fields")
		}
	}
	return nil
}

// checkFieldName checks one of several names of header fields, of which * must be
// alone.
func checkFieldName(option string, i int, name string, count int) error {
	switch {
	case name == "*" && count > 1:
		return policy.Optionf(option+"["+strconv.Itoa(i)+"]", "%s has * and names beside it, which mean nothing: use either * or the names", option)
	case !httpguts.ValidHeaderFieldName(name):
		return policy.Optionf(option+"["+strconv.Itoa(i)+"]", "%q is not the name of a header field: use one such as X-Request-ID", name)
	}
	return nil
}

func (p *CORS) checkMaxAge() error {
	if age := time.Duration(p.MaxAge); age < 0 || age%time.Second != 0 {
		return policy.Optionf("max_age", "max_age %s is not a number of whole seconds: use a duration such as 10m", age)
	}
	return nil
}

// ServeHTTP answers preflights, and passes on everything else.
func (p *CORS) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if p.Off() {
		return next.ServeHTTP(w, r)
	}
	if r.Method == http.MethodOptions && len(r.Header["Access-Control-Request-Method"]) > 0 {
		p.answerPreflight(w, r)
		return nil
	}
	hw := httpx.NewHeaderWriter(w, p, p.allowedOrigin(r, r.Method))
	err := next.ServeHTTP(hw, r)
	hw.Close()
	return err
}

// allowedOrigin is whom a response to a request of that method may be read by, as
// Access-Control-Allow-Origin says it. It is empty if none may.
func (p *CORS) allowedOrigin(r *http.Request, method string) string {
	if p.origins.any && p.allowsMethod(method) {
		return "*" // always, so that one response in a cache serves all pages
	}
	if said := r.Header["Origin"]; len(said) == 1 && p.origins.allow(said[0]) && p.allowsMethod(method) {
		return said[0]
	}
	return ""
}

func (p *CORS) allowsMethod(method string) bool {
	return method == http.MethodOptions || slices.Contains(p.AllowedMethods, method)
}

// answerPreflight answers a browser that asks what it may send.
func (p *CORS) answerPreflight(w http.ResponseWriter, r *http.Request) {
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
	} else if c := p.Logger().Check(zapcore.DebugLevel, "preflight not allowed"); c != nil {
		c.Write(zap.Strings("origin", r.Header["Origin"]), zap.String("method", method), zap.Strings("headers", wanted))
	}
	w.WriteHeader(http.StatusNoContent)
}

// allowsHeaders reports whether all header fields that a browser wants to send are
// allowed: lines of names with commas between them.
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

// EditHeader replaces what the backend says of CORS. The response may be read by the
// given origin, if there is one.
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

// removeCORS removes all that a response says of CORS. Going through the whole
// header instead would take longer, and so would deleting what is hardly ever there.
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
	if found { // the others mean nothing alone, and are not looked for
		delete(header, "Access-Control-Max-Age")
		delete(header, "Access-Control-Allow-Private-Network")
	}
}

// addVary says that a response depends on a field of the request, unless it says so
// already.
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

// RequestFields implements policy.FieldReader.
func (p *CORS) RequestFields() []string { return p.AllowedHeaders }
