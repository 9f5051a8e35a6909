// Package httpcache implements the rules of a shared HTTP cache (RFC 9111) and a store of
// responses with bounded memory. It does not depend on Caddy. Package cache provides the
// handler.
package httpcache
