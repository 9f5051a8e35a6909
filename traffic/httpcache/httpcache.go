// Package httpcache implements the rules of a shared HTTP cache (RFC 9111) and a store of
// responses with bounded memory. It imports no server: package cache makes a policy of it.
package httpcache
