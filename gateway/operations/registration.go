package operations

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/rgate/rgate/internal/options"
)

// Registration lets instances of services register their addresses below the operations
// endpoints. It applies to backends with the option `register`.
//
//	PUT    services/{backend}/{instance}             {"url": …, "health_check_url": …, "ttl": …}
//	POST   services/{backend}/{instance}/heartbeat
//	DELETE services/{backend}/{instance}
type Registration struct {
	// The time after which an instance is removed unless it registers again or sends a
	// heartbeat. It is also the maximum that an instance can request. Default: 300s.
	TTL caddy.Duration `json:"ttl,omitempty" default:"300s"`
}

const defaultRegistrationTTL = 5 * time.Minute

// authenticators lists the handlers that can protect registration.
var authenticators = []string{"rgate_jwt", "rgate_api_key", "authentication", "rgate_require"}

// checkRegistration reports a negative TTL, or registration without authentication.
func (o *Config) checkRegistration() error {
	if o.Registration == nil {
		return nil
	}
	if o.Registration.TTL < 0 {
		return options.Errorf("registration.ttl", "invalid ttl %s: must be a positive duration such as 300s", time.Duration(o.Registration.TTL))
	}
	for _, raw := range o.HandlersRaw {
		var handler struct {
			Handler  string `json:"handler"`
			Disabled bool   `json:"disabled"`
		}
		if err := json.Unmarshal(raw, &handler); err == nil && slices.Contains(authenticators, handler.Handler) && !handler.Disabled {
			return nil
		}
	}
	return options.Errorf("registration", "registration requires authentication: add a policy such as api_key or jwt to operations")
}

func (c *Registration) ttl() time.Duration {
	if c.TTL == 0 {
		return defaultRegistrationTTL
	}
	return time.Duration(c.TTL)
}

// registrationPath returns the segments after services/ in the path of the request. ok
// reports whether it is a registration path.
func (o *Config) registrationPath(r *http.Request) (parts []string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.Path, o.Path+"/services/")
	if !ok || o.Registration == nil {
		return nil, false
	}
	parts = strings.Split(rest, "/")
	return parts, len(parts) == 2 && parts[1] != "" || len(parts) == 3 && parts[2] == "heartbeat"
}

// serveRegistration registers, renews or removes an instance.
func (o *Config) serveRegistration(w http.ResponseWriter, r *http.Request, parts []string) error {
	rep, name, instance := o.reporter, parts[0], parts[1]
	i := slices.IndexFunc(rep.Backends, func(b Backend) bool { return b.Name == name && b.Register })
	if i < 0 {
		return statusError{http.StatusNotFound, fmt.Errorf("unknown backend %q: must be a backend that sets register", name)}
	}
	heartbeat, method := len(parts) == 3, r.Method
	switch {
	case heartbeat && method == http.MethodPost:
		if !rep.Registry.renew(name, instance) {
			return statusError{http.StatusNotFound, fmt.Errorf("unknown instance %q: register it with PUT", instance)}
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	case !heartbeat && method == http.MethodDelete:
		if !rep.Registry.remove(name, instance) {
			return statusError{http.StatusNotFound, fmt.Errorf("unknown instance %q", instance)}
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	case !heartbeat && method == http.MethodPut:
		return o.put(w, r, rep.Backends[i], instance)
	}
	w.Header().Set("Allow", map[bool]string{true: "POST", false: "PUT, DELETE"}[heartbeat])
	return statusError{http.StatusMethodNotAllowed, errors.New("method not allowed: use PUT or DELETE for an instance, POST for its heartbeat")}
}

func (o *Config) put(w http.ResponseWriter, r *http.Request, b Backend, instance string) error {
	var request struct {
		URL   string   `json:"url"`
		Check string   `json:"health_check_url"`
		TTL   lifetime `json:"ttl"`
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&request)
	if err == nil {
		if _, more := decoder.Token(); more != io.EOF {
			err = errors.New("unexpected data after the object")
		}
	}
	if err != nil {
		return statusError{http.StatusBadRequest, fmt.Errorf(`reading the instance: %w: use {"url": "http://host:port"}`, err)}
	}
	dial, err := b.dialAddress(request.URL)
	if err != nil {
		return statusError{http.StatusBadRequest, err}
	}
	if err := checkHealthURL(request.Check, dial); err != nil {
		return statusError{http.StatusBadRequest, err}
	}
	ttl := o.Registration.ttl()
	if own := time.Duration(request.TTL); own < 0 || own > ttl {
		return statusError{http.StatusBadRequest, fmt.Errorf("invalid ttl %s: must be positive and at most %s", own, ttl)}
	} else if own > 0 {
		ttl = own
	}
	isNew, err := o.reporter.Registry.put(b.Name, instance, dial, request.Check, ttl)
	if err != nil {
		return statusError{http.StatusInsufficientStorage, err}
	}
	status := http.StatusOK
	if isNew {
		status = http.StatusCreated
	}
	return writeJSON(w, r, status, map[string]any{"service": b.Name, "instance": instance, "address": dial, "ttl_seconds": ttl.Seconds()})
}

// dialAddress returns the host:port of an instance's URL.
func (b Backend) dialAddress(text string) (dial string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("invalid url %q: must consist of scheme, host and port, such as http://10.0.0.7:8080", text)
	}
	scheme := b.Scheme
	if scheme == "" {
		scheme = "http"
	}
	if u.Scheme != scheme {
		return "", fmt.Errorf("invalid url %q: must have the scheme of backend %q, %s", text, b.Name, scheme)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "h2c": "80", "https": "443"}[scheme]
	}
	if !isPort(port) {
		return "", fmt.Errorf("invalid port %s of url %q: must be 1 to 65535", port, text)
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// checkHealthURL returns an error if the health check URL has another host than the
// instance. Instances must not make the gateway send requests to arbitrary hosts.
func checkHealthURL(text, dial string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	host, _, _ := net.SplitHostPort(dial)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Hostname() != host {
		return fmt.Errorf("invalid health_check_url %q: must be an http or https URL with the host of the instance, %s", text, host)
	}
	if port := u.Port(); port != "" && !isPort(port) {
		return fmt.Errorf("invalid port %s of health_check_url %q: must be 1 to 65535", port, text)
	}
	return nil
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

// lifetime is a duration. In JSON, it is a string such as "300s" or a number of
// seconds.
type lifetime time.Duration

func (l *lifetime) UnmarshalJSON(text []byte) error {
	seconds, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return json.Unmarshal(text, (*caddy.Duration)(l))
	}
	if nanoseconds := seconds * float64(time.Second); math.Abs(nanoseconds) < math.MaxInt64 {
		*l = lifetime(nanoseconds)
		return nil
	}
	return fmt.Errorf("invalid ttl %s: must be a number of seconds, or a string such as \"300s\"", text)
}
