// Package store records the bytes that services received and sent in an SQL database that
// several gateways may share: by minute, exact for bodies.
//
// Package stats counts the bytes. A [Store] collects them every second, together with those
// of scraped gateways. The REST endpoints, quotas and the dashboard read from it.
package store

import "time"

// Direction is the direction of bytes, from the view of clients.
type Direction string

// The directions.
const (
	Ingress Direction = "ingress" // from clients: what the gateway received
	Egress  Direction = "egress"  // to clients: what the gateway sent
)

// Key is what bytes are grouped by. Names come from the configuration, those of consumers
// from authentication.
type Key struct {
	Service string // the name of the backend
	Route   string // the name of the route

	// The consumer. Rows without a consumer count all bytes, including those of consumers:
	// do not add the two.
	Consumer string
}

// Bytes are numbers of bytes. Bodies are exact. Header fields are estimated by their size
// in HTTP/1.1.
type Bytes struct {
	Ingress, Egress               int64
	IngressHeaders, EgressHeaders int64
}

// Add adds o.
func (b *Bytes) Add(o Bytes) {
	b.Ingress += o.Ingress
	b.Egress += o.Egress
	b.IngressHeaders += o.IngressHeaders
	b.EgressHeaders += o.EgressHeaders
}

// Of returns the bytes of the bodies that went in a direction.
func (b Bytes) Of(d Direction) int64 {
	if d == Ingress {
		return b.Ingress
	}
	return b.Egress
}

// IsZero reports whether there are none.
func (b Bytes) IsZero() bool { return b == Bytes{} }

// Row is the bytes that one gateway, or one source, counted under a key in a minute.
type Row struct {
	Minute  time.Time // its beginning, UTC
	Gateway string    // the gateway's node name, or the name of a source
	Key
	Bytes
}

// RequestRow is how the requests of a route to a backend went in a minute.
type RequestRow struct {
	Minute  time.Time
	Gateway string
	Service string
	Route   string

	Requests uint64  // all of them
	Errors   uint64  // of them, those with status 400 and above
	Seconds  float64 // the sum of their durations
	Sketch   []byte  // of the durations in seconds: a DDSketch, encoded
}

// Filter says which rows count. An empty list admits everything, except that without
// consumers only the account of everybody's bytes is read.
type Filter struct {
	Gateways, Services, Routes, Consumers []string
}

// Dimension is what the points of a query are grouped by.
type Dimension string

// The dimensions.
const (
	ByService  Dimension = "service"
	ByRoute    Dimension = "route"
	ByConsumer Dimension = "consumer" // reads the accounts of consumers
	ByGateway  Dimension = "gateway"
)

// Query asks for the bytes of a span of time, in windows of equal length.
type Query struct {
	Filter

	// The span, From included and To not. Both are cut to whole windows by the reader.
	From, To time.Time

	// The length of a window: a whole number of minutes. A day or more is in UTC.
	Step time.Duration

	// The dimensions of points. Others are summed.
	GroupBy []Dimension

	// Of requests, leaves out the sketches, which are most of what there is to read.
	NoSketches bool
}

// Point is the bytes of one window. Windows without a row have no point.
type Point struct {
	Start   time.Time // of the window, UTC
	Gateway string    // empty unless grouped by, like the parts of Key
	Key
	Bytes
}

// RequestPoint is how requests went in one window.
type RequestPoint struct {
	Start          time.Time
	Gateway        string
	Service, Route string
	Requests       uint64
	Errors         uint64
	Seconds        float64
	Sketch         []byte // those of its minutes, merged
}
