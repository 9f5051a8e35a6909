// Package httpcache is what a shared HTTP cache has to know (RFC 9111), and a store
// for answers in a bounded amount of memory. It knows nothing of servers and
// clients: package traffic makes a policy of it.
package httpcache
