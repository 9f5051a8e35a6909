// Package transform implements the handler rgate_transform, which changes requests and
// responses: header fields, queries, methods, paths, statuses and JSON bodies.
package transform

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rgate/rgate/internal/options"
	"github.com/rgate/rgate/internal/trust"
	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Transform))
	httpcaddyfile.RegisterHandlerDirective("rgate_transform", policy.Directive[Transform])
}

const defaultMaxBody options.Size = 1 << 20

// Transform changes requests before they reach a backend, and responses before they reach
// the client: header fields, the query, the method, the path, JSON bodies, the status.
//
// Names are literal. Values may contain placeholders, which are evaluated before any
// change. Within headers, query and body, edits are made in this order: delete, rename,
// move, set, add. Edits of the same kind are made in the alphabetical order of names.
//
// It sets these placeholders if the request body is JSON, and the transform changes it or
// a value contains one of them:
//
// Placeholder | Description
// ------------|-------------
// `{http.rgate.body}` | The original body
// `{http.rgate.body.PATH}` | A value in the original body, such as `{http.rgate.body.user.name}`. Strings are unquoted; other values are JSON
type Transform struct {
	policy.Base

	// The changes of requests.
	Request RequestEdits `json:"request,omitzero"`

	// The changes of responses. Errors of the gateway, such as 503 without a backend, are
	// not changed.
	Response ResponseEdits `json:"response,omitzero"`

	// The maximum size of a body that is changed or read. Requests with larger bodies are
	// rejected with 413. Larger responses are replaced by 502. Default: 1MiB.
	MaxBody options.Size `json:"max_body,omitempty" default:"1MiB"`

	request  *requestPlan  // nil if requests are not changed
	response *responsePlan // nil if responses are not changed
	lenient  bool          // responses with invalid JSON are forwarded, as in earlier versions
}

// RequestEdits holds the changes of requests.
type RequestEdits struct {
	// The changes of header fields. `Host` can be set, but not changed otherwise.
	Headers FieldEdits `json:"headers,omitzero"`

	// The changes of query parameters. Other parameters are forwarded byte for byte.
	Query FieldEdits `json:"query,omitzero"`

	// The method of the request to the backend, such as PUT. Default: the client's
	// method.
	Method string `json:"method,omitempty"`

	// The encoded path of the request to the backend, such as
	// `/v2/users/{http.rgate.param.id}`. Values of placeholders are encoded. Requests are
	// rejected with 400 if a value is empty or contains slashes (except in
	// `{http.rgate.param.*}` and `{http.request.uri.path}`), or if the path begins with
	// two slashes or contains dot segments. Default: the client's path.
	Path string `json:"path,omitempty"`

	// The changes of a JSON body.
	Body RequestBodyEdits `json:"body,omitzero"`
}

// ResponseEdits holds the changes of responses.
type ResponseEdits struct {
	// The changes of header fields.
	Headers FieldEdits `json:"headers,omitzero"`

	// Replacement statuses by status, such as `"404": 204`, or by class, such as
	// `"5xx": 503`. An exact status takes precedence over its class.
	Status map[string]int `json:"status,omitempty"`

	// The changes of a JSON body. Responses with invalid JSON are replaced by 502.
	Body BodyEdits `json:"body,omitzero"`

	// Whether `body` rejects responses that may contain JSON in other forms: streams of
	// JSON (such as application/x-ndjson, application/json-seq and text/event-stream),
	// and responses without a valid Content-Type. They are replaced by 502. Default:
	// false. Streams pass unchanged, and responses without a valid Content-Type are
	// changed if they begin like JSON.
	Strict *bool `json:"strict,omitempty"`

	// Whether a JSON or text body becomes the `data` of an object with `status`, `data`,
	// `request_id`, `service` and `processing_time`. Default: false.
	Envelope bool `json:"envelope,omitempty"`
}

// FieldEdits holds changes of header fields or query parameters.
type FieldEdits struct {
	// The names of the fields or parameters to remove.
	Delete []string `json:"delete,omitempty"`

	// New names by old names. Fields or parameters that already have the new name are
	// replaced.
	Rename map[string]string `json:"rename,omitempty"`

	// Values by name. A value replaces all existing values of the name. Values may
	// contain placeholders.
	Set map[string]string `json:"set,omitempty"`

	// Additional values by name. Values may contain placeholders.
	Add map[string]string `json:"add,omitempty"`
}

// BodyEdits holds changes of a JSON body. Paths are names separated by dots. In an array,
// an index selects one element and `*` selects all elements. A dot in a name is written
// `\.`. All other bytes of the body are kept.
type BodyEdits struct {
	// The paths of the values to remove.
	Delete []string `json:"delete,omitempty"`

	// New names, which are not paths, by the path of the member. Members of the same
	// object that already have the new name are replaced.
	Rename map[string]string `json:"rename,omitempty"`

	// New paths by old paths.
	Move map[string]string `json:"move,omitempty"`

	// Values by path. A value is any JSON, and its strings may contain placeholders.
	// Missing members are added. In a Caddyfile, a value is text, or JSON after `json:`.
	Set map[string]Value `json:"set,omitempty"`
}

// RequestBodyEdits holds changes of the JSON body of a request.
type RequestBodyEdits struct {
	BodyEdits

	// The new body: JSON, or a string that contains JSON. Strings in it may contain
	// placeholders. It replaces the body of every request whose method allows a body.
	// Cannot be combined with the other options.
	Template Value `json:"template,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Transform) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_transform",
		New: func() caddy.Module { return new(Transform) },
	}
}

// Provision compiles the options.
func (t *Transform) Provision(ctx caddy.Context) error {
	if err := t.Start(ctx, "transform"); err != nil {
		return err
	}
	if err := t.Check(); err != nil {
		return err
	}
	if t.MaxBody == 0 {
		t.MaxBody = defaultMaxBody
	}
	t.request, t.response = t.Request.plan(), t.Response.plan()
	at := policy.ScopeOf(ctx)
	t.lenient = at.HasLegacy(policy.LegacyUnreadableJSON)
	if at.Level == "" {
		for _, warning := range t.Warnings(nil) {
			ctx.Logger().Warn(warning)
		}
	}
	return nil
}

// Warnings implements policy.Warner.
func (t *Transform) Warnings([]caddyhttp.MiddlewareHandler) []string {
	if t.lenient || t.Response.Strict != nil || t.response == nil || t.response.body.empty() {
		return nil
	}
	return []string{"responses with a JSON Content-Type and an invalid body are rejected with 502 if transform edits the body: " +
		"set response.strict to true to also reject JSON streams and responses without a valid Content-Type, or to false to keep the default; " +
		"earlier versions passed all of these responses, and legacy: [" + policy.LegacyUnreadableJSON + "] restores that"}
}

// Validate implements caddy.Validator.
func (t *Transform) Validate() error { return t.Check() }

// ServeHTTP changes the request, and the response of the next handler.
func (t *Transform) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if t.Off() || t.request == nil && t.response == nil {
		return next.ServeHTTP(w, r)
	}
	x := transformation{Transform: t, repl: replacerOf(r), head: r.Method == http.MethodHead}
	if t.response != nil {
		x.begin(r)
	}
	if t.request != nil {
		if status, err := x.changeRequest(w, r); err != nil {
			return x.refuse(w, r, status, err)
		}
	}
	if t.response == nil {
		return next.ServeHTTP(w, r)
	}
	if t.response.editsBody() {
		askForWhole(r.Header)
	}
	return x.changeResponse(w, r, next)
}

// EachFieldSet implements policy.FieldSetter.
func (t *Transform) EachFieldSet(visit func(trust.FieldSet)) {
	if t.Off() {
		return
	}
	edits := &t.Request.Headers
	for _, texts := range []map[string]string{edits.Set, edits.Add} {
		for name, text := range texts {
			visit(trust.FieldSet{Name: http.CanonicalHeaderKey(name), Text: text})
		}
	}
	for from, to := range edits.Rename {
		visit(trust.FieldSet{Name: http.CanonicalHeaderKey(to), Text: "{http.request.header." + from + "}"})
	}
}

func replacerOf(r *http.Request) *caddy.Replacer {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		return repl
	}
	return caddy.NewEmptyReplacer()
}

// transformation holds the state of a request and its response.
type transformation struct {
	*Transform
	repl *caddy.Replacer
	head bool // the client's method is HEAD

	// For the envelope.
	start     time.Time
	requestID string
}

// refuse rejects a request or a response and logs the cause.
func (x *transformation) refuse(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	message, level := "rejected a request that cannot be transformed", zapcore.InfoLevel
	if status == http.StatusBadGateway {
		message, level = "rejected a response that cannot be transformed", zapcore.WarnLevel
	}
	if c := x.Logger().Check(level, message); c != nil {
		c.Write(zap.String("route", x.named("http.rgate.route")), zap.Int("status", status), zap.Error(cause))
	}
	return x.Refuse(w, r, status, cause)
}

// named returns the value of a placeholder, or an empty string if it is unknown.
func (x *transformation) named(placeholder string) string {
	value, _ := x.repl.GetString(placeholder)
	return value
}

// begin records the start time and the request ID for the envelope.
func (x *transformation) begin(r *http.Request) {
	if !x.response.envelope {
		return
	}
	x.start = time.Now()
	x.requestID = cmp.Or(x.named("http.rgate.request_id"), r.Header.Get("X-Request-Id"))
	if x.requestID == "" {
		x.requestID = x.named("http.request.uuid")
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Transform)(nil)
	_ caddy.Validator             = (*Transform)(nil)
	_ policy.Module               = (*Transform)(nil)
	_ policy.Warner               = (*Transform)(nil)
	_ trust.FieldSetter           = (*Transform)(nil)
	_ caddyhttp.MiddlewareHandler = (*Transform)(nil)
)

// RequestFields implements policy.FieldReader.
func (p *Transform) RequestFields() []string {
	return slices.Sorted(maps.Keys(p.Request.Headers.Rename))
}
