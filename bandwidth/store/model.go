// Package store records the bytes that services received and sent, by minute, in an SQL
// database that several gateways may share. Counts of body bytes are exact.
//
// Package stats counts the bytes. A [Store] collects them every second. It also stores
// the bytes of scraped gateways. The REST endpoints, quotas and the dashboard read from
// it.
package store

import "time"

// Direction is the direction of traffic, relative to clients.
type Direction string

// The directions.
const (
	Ingress Direction = "ingress" // from clients to the gateway
	Egress  Direction = "egress"  // from the gateway to clients
)

// Key is the set of names that bytes are grouped by. Service and route names come from
// the configuration, consumer names from authentication.
type Key struct {
	Service string // the name of the backend
	Route   string // the name of the route

	// The consumer. Rows without a consumer include the bytes of all consumers, so the
	// two must not be added.
	Consumer string
}

// Bytes holds byte counts. Counts of bodies are exact. Header fields are estimated by
// their size in HTTP/1.1.
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

// Of returns the body bytes in a direction.
func (b Bytes) Of(d Direction) int64 {
	if d == Ingress {
		return b.Ingress
	}
	return b.Egress
}

// IsZero reports whether all counts are zero.
func (b Bytes) IsZero() bool { return b == Bytes{} }

// Row holds the bytes of a key that one gateway or source counted in a minute.
type Row struct {
	Minute  time.Time // start of the minute, UTC
	Gateway string    // node name of the gateway, or name of the source
	Key
	Bytes
}

// RequestRow holds the request counts of a route and backend in a minute.
type RequestRow struct {
	Minute  time.Time
	Gateway string
	Service string
	Route   string

	Requests uint64
	Errors   uint64  // number of requests with status 400 or above
	Seconds  float64 // sum of request durations
	Sketch   []byte  // encoded DDSketch of durations in seconds
}

// Filter selects rows by name. An empty list matches every name. Without consumers, only
// rows without a consumer are read, unless points are grouped by consumer.
type Filter struct {
	Gateways, Services, Routes, Consumers []string
}

// Dimension is a key that points can be grouped by.
type Dimension string

// The dimensions.
const (
	ByService  Dimension = "service"
	ByRoute    Dimension = "route"
	ByConsumer Dimension = "consumer" // reads rows with a consumer
	ByGateway  Dimension = "gateway"
)

// Query selects the bytes of a time range, in windows of equal length.
type Query struct {
	Filter

	// The time range: From is inclusive, To is exclusive. Both are aligned to whole
	// windows.
	From, To time.Time

	// The window length, a whole number of minutes. Windows are aligned to the Unix epoch,
	// and windows of whole weeks start on Mondays.
	Step time.Duration

	// The dimensions of points. Other dimensions are summed.
	GroupBy []Dimension

	// Whether Requests omits the latency sketches, which are the largest part of the
	// data.
	NoSketches bool
}

// Point holds the bytes of one window. Windows without a row have no point.
type Point struct {
	Start   time.Time // start of the window, UTC
	Gateway string    // empty unless grouped by gateway; the same holds for the fields of Key
	Key
	Bytes
}

// RequestPoint holds the request counts of one window.
type RequestPoint struct {
	Start          time.Time
	Gateway        string
	Service, Route string
	Requests       uint64
	Errors         uint64
	Seconds        float64
	Sketch         []byte // the merged sketches of the window
}
