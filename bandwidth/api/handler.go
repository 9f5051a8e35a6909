package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rgate/rgate/bandwidth/store"
	"github.com/rgate/rgate/policy"
	"go.uber.org/zap"
)

// usageStore is the part of store.Store that the REST endpoints read.
type usageStore interface {
	Usage(ctx context.Context, q store.Query) ([]store.Point, error)
	Names(ctx context.Context, since time.Time) (services, routes, consumers, gateways []string, err error)
}

// Handler serves the reports under a base path.
type Handler struct {
	Base    string
	Store   usageStore
	Quotas  func() []any // returns the published quotas
	Sources func() any   // returns the status of each source
	Now     func() time.Time
	Logger  *zap.Logger
}

const (
	// readTimeout is the maximum duration of a query to the store.
	readTimeout = 20 * time.Second

	// retryAfter is the Retry-After value in seconds if the store is unavailable.
	retryAfter = 5

	// namesSince is the default age limit of the reported names.
	namesSince = 31 * oneDay
)

// report writes a response body and returns its content type.
type report func(ctx context.Context, r *http.Request, body *bytes.Buffer) (contentType string, err error)

const (
	typeJSON = "application/json"
	typeCSV  = "text/csv; charset=utf-8; header=present"
)

// statusError is an error with an HTTP status code.
type statusError struct {
	status int
	error
}

// reportAt returns the report at a path relative to the base, or nil if there is none.
func (a *Handler) reportAt(path string) report {
	switch path {
	case "", "/":
		return a.series
	case "/total":
		return a.total
	case "/names":
		return a.names
	case "/quotas":
		return a.listOf(func() any { return orEmpty(a.Quotas()) })
	case "/sources":
		return a.listOf(a.Sources)
	case "/openapi.json":
		return a.openAPI
	}
	return nil
}

// Serve writes the report at the request's path.
func (a *Handler) Serve(w http.ResponseWriter, r *http.Request) error {
	header := w.Header()
	header.Set("Vary", "Accept")
	header.Set("X-Content-Type-Options", "nosniff")
	write := a.reportAt(strings.TrimPrefix(r.URL.Path, a.Base))
	if write == nil {
		return a.writeError(w, r, statusError{http.StatusNotFound, errors.New("unknown report: use " + a.Base + " or one of its subpaths total, names, quotas, sources and openapi.json")})
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		return a.writeError(w, r, statusError{http.StatusMethodNotAllowed, errors.New("reports are read-only: use GET or HEAD")})
	}
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		return a.writeError(w, r, statusError{http.StatusBadRequest, fmt.Errorf("invalid query: %w: encode percent signs as %%25 and semicolons as %%3B", err)})
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	var body bytes.Buffer
	contentType, err := write(ctx, r, &body)
	if err != nil {
		return a.writeError(w, r, err)
	}
	digest := sha256.Sum256(body.Bytes())
	tag := `"` + hex.EncodeToString(digest[:12]) + `"`
	header.Set("ETag", tag)
	// Clients may store the response but must revalidate it. Past windows may still
	// change when a gateway writes buffered rows after a database outage.
	header.Set("Cache-Control", "private, no-cache")
	if matchesTag(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if contentType == typeCSV {
		header.Set("Content-Disposition", `attachment; filename="bandwidth_used.csv"`)
	}
	policy.WriteBody(w, r, http.StatusOK, contentType, body.Bytes())
	return nil
}

// matchesTag reports whether If-None-Match contains the response's ETag (RFC 9110,
// section 13.1.2).
func matchesTag(values []string, tag string) bool {
	for _, value := range values {
		for one := range strings.SplitSeq(value, ",") {
			if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == tag || one == "*" {
				return true
			}
		}
	}
	return false
}

// errorBody is the body of an error response.
type errorBody struct {
	Status int    `json:"status"`
	Error  string `json:"error"`

	// The invalid query parameter. Empty for other errors.
	Parameter string `json:"parameter,omitempty"`
}

// writeError writes an error response. Details of store errors are only logged.
func (a *Handler) writeError(w http.ResponseWriter, r *http.Request, err error) error {
	said := errorBody{Status: http.StatusServiceUnavailable, Error: "the store cannot be read at the moment: try again later, and see the gateway's log"}
	var wrong *paramError
	var known statusError
	switch {
	case errors.As(err, &wrong):
		said = errorBody{http.StatusBadRequest, wrong.Error(), wrong.Parameter}
	case errors.As(err, &known):
		said = errorBody{Status: known.status, Error: known.Error()}
	default:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
		if r.Context().Err() == nil {
			a.Logger.Error("reading bandwidth usage failed", zap.Error(err))
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	body, _ := json.Marshal(said) // cannot fail: said has only strings and an integer
	policy.WriteBody(w, r, said.Status, typeJSON, append(body, '\n'))
	return nil
}

// wantsCSV reports whether the format parameter is csv, or Accept includes CSV but not
// JSON.
func (q *usageParams) wantsCSV(r *http.Request) bool {
	return q.csv || r.URL.Query().Get("format") == "" && acceptsCSV(r)
}

func acceptsCSV(r *http.Request) bool {
	csv := false
	for _, value := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(value, ",") {
			kind, params, err := mime.ParseMediaType(one)
			if err != nil || params["q"] == "0" {
				continue
			}
			if kind == typeJSON {
				return false
			}
			csv = csv || kind == "text/csv"
		}
	}
	return csv
}

// series reports the bytes of each window.
func (a *Handler) series(ctx context.Context, r *http.Request, body *bytes.Buffer) (string, error) {
	q, err := parseUsage(r.URL.Query(), seriesParams, a.Now())
	if err != nil {
		return "", err
	}
	points, err := a.Store.Usage(ctx, q.query())
	if err != nil {
		return "", err
	}
	groups := q.arrange(points, q.windows(), func(p *store.Point) int { return q.index(p.Start) })
	if n := len(groups) * q.windows() * len(q.types); n > maxPoints {
		return "", paramf("group_by", "too many points, %d: the maximum is %d: use a longer step, a shorter range, one type or fewer names", n, maxPoints)
	}
	if q.wantsCSV(r) {
		q.writeCSV(body, groups, q.stamp, true)
		return typeCSV, nil
	}
	q.writeJSON(body, groups, q.stamp)
	body.WriteByte('\n')
	return typeJSON, nil
}

// total reports the bytes of the whole time range.
func (a *Handler) total(ctx context.Context, r *http.Request, body *bytes.Buffer) (string, error) {
	q, err := parseUsage(r.URL.Query(), totalParams, a.Now())
	if err != nil {
		return "", err
	}
	var points []store.Point
	for _, part := range pieces(q.from, q.to) {
		ask := q.query()
		ask.From, ask.To, ask.Step = part.from, part.to, part.step
		some, err := a.Store.Usage(ctx, ask)
		if err != nil {
			return "", err
		}
		points = append(points, some...)
	}
	groups := q.arrange(points, 1, func(*store.Point) int { return 0 })
	untimed := func(int) string { return "" }
	if q.wantsCSV(r) {
		q.writeCSV(body, groups, untimed, false)
		return typeCSV, nil
	}
	body.WriteString(`{"from":"` + q.start() + `","to":"` + q.end() + `","totals":`)
	q.writeJSON(body, groups, untimed)
	body.WriteString("}\n")
	return typeJSON, nil
}

// names reports the service, route, consumer and gateway names with bytes.
func (a *Handler) names(ctx context.Context, r *http.Request, body *bytes.Buffer) (string, error) {
	if err := checkNames(r.URL.Query(), []string{"from"}); err != nil {
		return "", err
	}
	since := a.Now().Add(-namesSince)
	if text := r.URL.Query().Get("from"); text != "" {
		from, err := parseTime("from", text)
		if err != nil {
			return "", err
		}
		since = from
	}
	services, routes, consumers, gateways, err := a.Store.Names(ctx, since)
	if err != nil {
		return "", err
	}
	return typeJSON, json.NewEncoder(body).Encode(map[string][]string{
		"services": orEmpty(services), "routes": orEmpty(routes), "consumers": orEmpty(consumers), "gateways": orEmpty(gateways),
	})
}

// listOf returns a report without parameters.
func (a *Handler) listOf(read func() any) report {
	return func(_ context.Context, r *http.Request, body *bytes.Buffer) (string, error) {
		if err := checkNames(r.URL.Query(), nil); err != nil {
			return "", err
		}
		return typeJSON, json.NewEncoder(body).Encode(read())
	}
}

// orEmpty returns an empty list for a nil list, so that JSON has [] instead of null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

//go:embed openapi.json
var openAPIText string

// openAPI writes the OpenAPI description of these endpoints.
func (a *Handler) openAPI(_ context.Context, r *http.Request, body *bytes.Buffer) (string, error) {
	if err := checkNames(r.URL.Query(), nil); err != nil {
		return "", err
	}
	base, _ := json.Marshal(a.Base) // marshaling a string cannot fail
	body.WriteString(strings.ReplaceAll(openAPIText, "{base}", strings.Trim(string(base), `"`)))
	return "application/vnd.oai.openapi+json;version=3.1", nil
}

// Interface guard
var _ usageStore = (*store.Store)(nil)
