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

	"github.com/rgate/rgate/policy"
)

func init() {
	caddy.RegisterModule(new(Transform))
	httpcaddyfile.RegisterHandlerDirective("rgate_transform", policy.Directive[Transform])
}

const defaultMaxBody policy.Size = 1 << 20

// Transform changes requests on their way to a backend, and answers on their way
// back: header fields, the query, the method, the path, JSON bodies, the status.
//
// Names stand as they are; texts that are put in may have placeholders, which stand for
// what the request was before any of the changes. Within headers, query and body,
// things are done in this order: delete, rename, move, set, add; and each of them in
// the alphabetical order of names.
//
// Placeholders that it sets, if the body of the request is JSON, and is to be changed
// or has such a placeholder in one of the texts:
//
// Placeholder | Description
// ------------|-------------
// `{http.rgate.body}` | The whole body, before any change
// `{http.rgate.body.PATH}` | A part of it: `{http.rgate.body.user.name}`. A string is what it says, all else is JSON
type Transform struct {
	policy.Base

	// What is changed of requests.
	Request TransformRequest `json:"request,omitzero"`

	// What is changed of answers. What the gateway itself answers in the place of a
	// backend, such as 503 if there is none, is no answer in this sense.
	Response TransformResponse `json:"response,omitzero"`

	// How large a body may be that is to be changed. A request with a larger one is
	// refused with 413; in the place of an answer with a larger one comes 502.
	// Default: 1MiB.
	MaxBody policy.Size `json:"max_body,omitempty" default:"1MiB"`

	request  *requestPlan  // nil: requests stay as they are
	response *responsePlan // nil: answers stay as they are
	lenient  bool          // what claims to be JSON and is none passes, as in earlier versions
}

// TransformRequest is what is changed of requests.
type TransformRequest struct {
	// Header fields. `Host` can be set.
	Headers FieldEdits `json:"headers,omitzero"`

	// Parameters of the query. All others keep their bytes.
	Query FieldEdits `json:"query,omitzero"`

	// The method that the backend gets, such as PUT, whatever the client's was.
	Method string `json:"method,omitempty"`

	// The path that the backend gets, encoded, such as `/v2/users/{http.rgate.param.id}`.
	// What a placeholder stands for is encoded. It must not be empty and must have no
	// slashes, except for whole paths (`{http.rgate.param.*}`, `{http.request.uri.path}`);
	// a request is refused with 400 if it has, or if dot segments come about.
	Path string `json:"path,omitempty"`

	// The body, if it is JSON.
	Body RequestBodyEdits `json:"body,omitzero"`
}

// TransformResponse is what is changed of answers.
type TransformResponse struct {
	// Header fields.
	Headers FieldEdits `json:"headers,omitzero"`

	// Other statuses in the place of some: `"404": 204`, or of whole classes:
	// `"5xx": 503`. An exact status comes before its class.
	Status map[string]int `json:"status,omitempty"`

	// The body, if it is JSON. In place of a response that claims to be JSON and cannot be
	// read comes 502.
	Body BodyEdits `json:"body,omitzero"`

	// Whether streams of JSON (such as application/x-ndjson, application/json-seq and
	// text/event-stream) and responses without a type that can be read are refused with
	// 502 where `body` changes responses. Default: false, streams pass as they are, and
	// of the others those are changed that begin as JSON does.
	Strict *bool `json:"strict,omitempty"`

	// Whether a body of JSON or text becomes the `data` of an object with `status`,
	// `data`, `request_id`, `service` and `processing_time`. Default: false.
	Envelope bool `json:"envelope,omitempty"`
}

// FieldEdits are changes of header fields, or of the parameters of a query.
type FieldEdits struct {
	// Those of these names are removed.
	Delete []string `json:"delete,omitempty"`

	// Those of the name on the left get the one on the right, and replace others of it.
	Rename map[string]string `json:"rename,omitempty"`

	// The only value that the name has afterwards. May have placeholders.
	Set map[string]string `json:"set,omitempty"`

	// A value that the name has besides its others. May have placeholders.
	Add map[string]string `json:"add,omitempty"`
}

// BodyEdits are changes of a JSON body. Paths are names with dots between them;
// in an array, an index leads to an element, and `*` to all of them. A dot that
// belongs to a name is written `\.`. What no path leads to keeps its bytes.
type BodyEdits struct {
	// What is at these paths is removed.
	Delete []string `json:"delete,omitempty"`

	// The members at the paths on the left get the names on the right, which are no
	// paths, and replace others of the name beside them.
	Rename map[string]string `json:"rename,omitempty"`

	// What is at the path on the left goes to the path on the right.
	Move map[string]string `json:"move,omitempty"`

	// What is at the path on the left is replaced by the value on the right, or made:
	// any JSON, whose texts may have placeholders. In a Caddyfile, text, or JSON
	// after `json:`.
	Set map[string]Value `json:"set,omitempty"`
}

// RequestBodyEdits are changes of the JSON body of a request.
type RequestBodyEdits struct {
	BodyEdits

	// The whole new body: JSON, as such or as text, whose texts may have placeholders.
	// It becomes the body of every request whose method allows for one, whatever its
	// body was. Excludes the other options.
	Template Value `json:"template,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Transform) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.rgate_transform",
		New: func() caddy.Module { return new(Transform) },
	}
}

// Provision compiles what is to be done.
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
	at := policy.Standing(ctx)
	t.lenient = at.Restores(policy.LegacyUnreadableJSON)
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
	return []string{"a response that claims to be JSON and cannot be read is refused with 502 where transform changes its body: " +
		"set strict in response to true to refuse streams of JSON and responses without a type, too, or to false to let them pass; " +
		"earlier versions let all of them pass, and legacy: [" + policy.LegacyUnreadableJSON + "] restores that"}
}

// Validate implements caddy.Validator.
func (t *Transform) Validate() error { return t.Check() }

// ServeHTTP changes the request, and the answer of the next handler.
func (t *Transform) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if t.Off() || t.request == nil && t.response == nil {
		return next.ServeHTTP(w, r)
	}
	x := exchange{Transform: t, repl: replacerOf(r), head: r.Method == http.MethodHead}
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
func (t *Transform) EachFieldSet(visit func(policy.FieldSet)) {
	if t.Off() {
		return
	}
	edits := &t.Request.Headers
	for _, texts := range []map[string]string{edits.Set, edits.Add} {
		for name, text := range texts {
			visit(policy.FieldSet{Name: http.CanonicalHeaderKey(name), Text: text})
		}
	}
	for from, to := range edits.Rename {
		visit(policy.FieldSet{Name: http.CanonicalHeaderKey(to), Text: "{http.request.header." + from + "}"})
	}
}

func replacerOf(r *http.Request) *caddy.Replacer {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		return repl
	}
	return caddy.NewEmptyReplacer()
}

// exchange is a request and its answer.
type exchange struct {
	*Transform
	repl *caddy.Replacer
	head bool // the client asked with HEAD

	// For the envelope.
	start     time.Time
	requestID string
}

// refuse answers in the place of the backend, and says why in the log.
func (x *exchange) refuse(w http.ResponseWriter, r *http.Request, status int, cause error) error {
	message, level := "request refused that cannot be changed as configured", zapcore.InfoLevel
	if status == http.StatusBadGateway {
		message, level = "answer refused that cannot be changed as configured", zapcore.WarnLevel
	}
	if c := x.Logger().Check(level, message); c != nil {
		c.Write(zap.String("route", x.named("http.rgate.route")), zap.Int("status", status), zap.Error(cause))
	}
	return x.Refuse(w, r, status, cause)
}

// named returns what a placeholder stands for; nothing if that is not known.
func (x *exchange) named(placeholder string) string {
	value, _ := x.repl.GetString(placeholder)
	return value
}

// begin notes what the envelope of the answer will tell.
func (x *exchange) begin(r *http.Request) {
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
	_ policy.FieldSetter          = (*Transform)(nil)
	_ caddyhttp.MiddlewareHandler = (*Transform)(nil)
)

// RequestFields implements policy.FieldReader.
func (p *Transform) RequestFields() []string {
	return slices.Sorted(maps.Keys(p.Request.Headers.Rename))
}
