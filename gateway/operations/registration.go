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

// Registration lets instances of services tell the gateway themselves where they
// are, below the operations endpoints. It is for backends that have `register` set.
//
//	PUT    services/{backend}/{instance}             {"url": …, "health_check_url": …, "ttl": …}
//	POST   services/{backend}/{instance}/heartbeat
//	DELETE services/{backend}/{instance}
type Registration struct {
	// How long an instance is known after it was last heard of, and the most that it
	// may ask for. Default: 300s.
	TTL caddy.Duration `json:"ttl,omitempty" default:"300s"`
}

const defaultRegistrationTTL = 5 * time.Minute

// authenticates are the handlers by which somebody is known to be allowed to.
var authenticates = []string{"rgate_jwt", "rgate_api_key", "authentication", "rgate_require"}

// checkRegistration reports if just anybody could register.
func (o *Config) checkRegistration() error {
	if o.Registration == nil {
		return nil
	}
	if o.Registration.TTL < 0 {
		return options.Errorf("registration.ttl", "ttl is negative: use a positive duration such as 300s")
	}
	for _, raw := range o.HandlersRaw {
		var handler struct {
			Handler  string `json:"handler"`
			Disabled bool   `json:"disabled"`
		}
		if err := json.Unmarshal(raw, &handler); err == nil && slices.Contains(authenticates, handler.Handler) && !handler.Disabled {
			return nil
		}
	}
	return options.Errorf("registration", "registration lets whoever may see the operations endpoints receive the requests of others: add a policy such as api_key or jwt to operations")
}

// ttl is how long an instance is known.
func (c *Registration) ttl() time.Duration {
	if c.TTL == 0 {
		return defaultRegistrationTTL
	}
	return time.Duration(c.TTL)
}

// registers reports whether a request is about a registered instance, and which.
func (o *Config) registers(r *http.Request) (parts []string, ok bool) {
	rest, ok := strings.CutPrefix(r.URL.Path, o.Path+"/services/")
	if !ok || o.Registration == nil {
		return nil, false
	}
	parts = strings.Split(rest, "/")
	return parts, len(parts) == 2 && parts[1] != "" || len(parts) == 3 && parts[2] == "heartbeat"
}

// register answers a request about a registered instance.
func (o *Config) register(w http.ResponseWriter, r *http.Request, parts []string) error {
	rep, name, instance := o.reporter, parts[0], parts[1]
	i := slices.IndexFunc(rep.Backends, func(b Backend) bool { return b.Name == name && b.Register })
	if i < 0 {
		return reportError{http.StatusNotFound, fmt.Errorf("there is no backend %q that instances may register for: set register on it", name)}
	}
	beat, method := len(parts) == 3, r.Method
	switch {
	case beat && method == http.MethodPost:
		if !rep.Registry.renew(name, instance) {
			return reportError{http.StatusNotFound, fmt.Errorf("instance %q is not known: register it with PUT", instance)}
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	case !beat && method == http.MethodDelete:
		if !rep.Registry.remove(name, instance) {
			return reportError{http.StatusNotFound, fmt.Errorf("instance %q is not known", instance)}
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	case !beat && method == http.MethodPut:
		return o.put(w, r, rep.Backends[i], instance)
	}
	w.Header().Set("Allow", map[bool]string{true: "POST", false: "PUT, DELETE"}[beat])
	return reportError{http.StatusMethodNotAllowed, errors.New("use PUT, DELETE, or POST to its heartbeat")}
}

// put registers an instance.
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
			err = errors.New("something comes after it")
		}
	}
	if err != nil {
		return reportError{http.StatusBadRequest, fmt.Errorf(`reading the instance: %w; send {"url": "http://host:port"}`, err)}
	}
	dial, err := b.addressOf(request.URL)
	if err != nil {
		return reportError{http.StatusBadRequest, err}
	}
	if err := checkHealthURL(request.Check, dial); err != nil {
		return reportError{http.StatusBadRequest, err}
	}
	ttl := o.Registration.ttl()
	if own := time.Duration(request.TTL); own < 0 || own > ttl {
		return reportError{http.StatusBadRequest, fmt.Errorf("ttl %s is out of range: use at most %s", own, ttl)}
	} else if own > 0 {
		ttl = own
	}
	isNew, err := o.reporter.Registry.put(b.Name, instance, dial, request.Check, ttl)
	if err != nil {
		return reportError{http.StatusInsufficientStorage, err}
	}
	status := http.StatusOK
	if isNew {
		status = http.StatusCreated
	}
	return writeJSON(w, r, status, map[string]any{"service": b.Name, "instance": instance, "address": dial, "ttl_seconds": ttl.Seconds()})
}

// addressOf returns the host:port of an instance's URL.
func (b Backend) addressOf(text string) (dial string, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("url %q is not the address of an instance: use one such as http://10.0.0.7:8080", text)
	}
	scheme := b.Scheme
	if scheme == "" {
		scheme = "http"
	}
	if u.Scheme != scheme {
		return "", fmt.Errorf("url %q has the scheme %q, but backend %q speaks %s: use that", text, u.Scheme, b.Name, scheme)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "h2c": "80", "https": "443"}[scheme]
	}
	if !isPort(port) {
		return "", fmt.Errorf("url %q has the port %s: use 1 to 65535", text, port)
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// checkHealthURL makes sure that a health check asks the instance, and nobody else
// whom only the gateway can reach.
func checkHealthURL(text, dial string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	host, _, _ := net.SplitHostPort(dial)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Hostname() != host {
		return fmt.Errorf("health_check_url %q is not one of the instance: use its host, %s", text, host)
	}
	if port := u.Port(); port != "" && !isPort(port) {
		return fmt.Errorf("health_check_url %q has the port %s: use 1 to 65535", text, port)
	}
	return nil
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

// lifetime is a duration in JSON: a text such as "300s", or a number of seconds.
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
	return fmt.Errorf("ttl %s is out of range: use seconds, or a text such as \"300s\"", text)
}
