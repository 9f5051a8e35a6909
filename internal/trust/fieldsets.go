package trust

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/entry"
)

// FieldSet is a request field that a handler sets: its canonical name and its value,
// which may contain placeholders.
type FieldSet struct {
	Name, Text string

	// Last is true if a proxy sets the field after all handlers, when it sends the
	// request.
	Last bool
}

// FieldSetter is a handler that sets request fields.
type FieldSetter interface {
	EachFieldSet(visit func(FieldSet))
}

// EachFieldSet calls visit for each request field that a provisioned handler sets. It
// supports rgate's handlers, Caddy's `headers`, nested handlers, and the copied fields
// of forward_auth.
func EachFieldSet(handler caddyhttp.MiddlewareHandler, visit func(FieldSet)) {
	switch handler := handler.(type) {
	case FieldSetter:
		handler.EachFieldSet(visit)
	case *headers.Handler:
		if handler.Request != nil {
			eachFieldOf(handler.Request.Set, visit)
			eachFieldOf(handler.Request.Add, visit)
		}
	case *caddyhttp.Subroute:
		EachFieldSetIn(handler.Routes, visit)
	case *reverseproxy.Handler:
		if handler.Headers != nil && handler.Headers.Request != nil {
			last := func(set FieldSet) { visit(FieldSet{set.Name, set.Text, true}) }
			eachFieldOf(handler.Headers.Request.Set, last)
			eachFieldOf(handler.Headers.Request.Add, last)
			for name, replacements := range handler.Headers.Request.Replace {
				for _, replacement := range replacements {
					last(FieldSet{Name: http.CanonicalHeaderKey(name), Text: replacement.Replace})
				}
			}
		}
		for _, response := range handler.HandleResponse {
			EachFieldSetIn(response.Routes, visit)
		}
	}
}

// EachFieldSetOf is like EachFieldSet, but for all handlers of a server, except those in
// error routes.
func EachFieldSetOf(server *caddyhttp.Server, visit func(FieldSet)) {
	EachFieldSetIn(entry.Routes(server), visit)
	for _, route := range server.NamedRoutes {
		EachFieldSetIn(caddyhttp.RouteList{*route}, visit)
	}
}

// EachFieldSetIn is like EachFieldSet, but for the handlers of routes.
func EachFieldSetIn(routes caddyhttp.RouteList, visit func(FieldSet)) {
	for i := range routes {
		for _, handler := range routes[i].Handlers {
			EachFieldSet(handler, visit)
		}
	}
}

func eachFieldOf(fields http.Header, visit func(FieldSet)) {
	for name, texts := range fields {
		for _, text := range texts {
			visit(FieldSet{Name: http.CanonicalHeaderKey(name), Text: text})
		}
	}
}
