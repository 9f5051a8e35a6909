// Package traffic is the policies that shape what passes through: what a backend
// gets to see of a request, and a client of the answer.
package traffic
