package trust

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/rgate/rgate/internal/entry"
)

// FieldSet is a field that a handler sets on requests, by its canonical name, and the text
// that it sets it to, which may have placeholders.
type FieldSet struct {
	Name, Text string

	// Last is whether a proxy sets it when it sends the request, which no handler sees.
	Last bool
}

// FieldSetter is a handler that sets fields of requests.
type FieldSetter interface {
	EachFieldSet(visit func(FieldSet))
}

// EachFieldSet visits what a handler that has been provisioned sets on requests before these
// reach a backend: rgate's own, Caddy's `headers`, and those that stand within others, such
// as the fields that forward_auth copies.
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

// EachFieldSetOf does what EachFieldSet does, for all handlers of a server but those of its
// error routes.
func EachFieldSetOf(server *caddyhttp.Server, visit func(FieldSet)) {
	EachFieldSetIn(entry.Routes(server), visit)
	for _, route := range server.NamedRoutes {
		EachFieldSetIn(caddyhttp.RouteList{*route}, visit)
	}
}

// EachFieldSetIn does what EachFieldSet does, for the handlers of routes.
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
