package dockerupstreams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
)

// engine is a client of a container engine. It only sends GET requests for /_ping,
// /events, /containers/json, /containers/{id}/json and /networks, and HEAD requests for
// /_ping.
type engine interface {
	// ping checks that the engine responds, and negotiates the API version. It must be
	// called before the other methods.
	ping(ctx context.Context) error
	// subscribe opens the stream of container events since the given time, and returns
	// once the engine has accepted it. The stream ends when ctx is done or on an error.
	subscribe(ctx context.Context, since time.Time) (<-chan []event, <-chan error)
	// list returns the running containers among ids, or all running containers if ids
	// is nil.
	list(ctx context.Context, ids []string) ([]*container, error)
	// stopSignal returns the stop signal of a container, or 0 if it is unknown. If a
	// socket proxy rejects the request, the error is a *rejectedError.
	stopSignal(ctx context.Context, id string) (Signal, error)
	// listStopped returns the containers that do not run.
	listStopped(ctx context.Context) ([]*container, error)
	// networks returns the networks by name. Socket proxies may refuse it.
	networks(ctx context.Context) (map[string]networkKind, error)
	// peer returns the address of the last TCP connection to the engine.
	peer() peer
	// version returns the negotiated API version.
	version() string
	// close closes idle connections. Streams end with their context.
	close()
}

const (
	// The maximum time until the engine accepts the stream of events.
	subscribeTimeout = 10 * time.Second

	// The maximum number of IDs in a request. Proxies limit the length of a URL,
	// HAProxy to 15 KiB.
	idsPerList = 64
)

// dockerEngine is a client of the Docker Engine API, version 1.24 or newer.
type dockerEngine struct {
	api  *client.Client
	base url.URL
	conn atomic.Value // of peer
}

// peer is the remote address of a connection, and the local one.
type peer struct{ remote, local netip.Addr }

// is reports whether the remote address is text.
func (p peer) is(text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && p.remote == ip.Unmap()
}

// isLocal reports whether the connection stays on this machine.
func (p peer) isLocal() bool { return p.remote.IsValid() && p.remote == p.local }

func peerOf(conn net.Conn) (p peer) {
	if at, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		p.remote = at.Addr().Unmap()
	}
	if at, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
		p.local = at.Addr().Unmap()
	}
	return p
}

// openEngine creates a client for an address. It reads the certificates, but does not
// connect.
func openEngine(at address) (engine, error) {
	opts := []client.Opt{client.WithHost(at.host), client.WithVersion(at.apiVersion)}
	if at.certPath != "" {
		opts = append(opts, client.WithTLSClientConfig(
			filepath.Join(at.certPath, "ca.pem"),
			filepath.Join(at.certPath, "cert.pem"),
			filepath.Join(at.certPath, "key.pem")))
	}
	base := url.URL{Scheme: "http", Host: "docker"}
	if hostURL, err := client.ParseHostURL(at.host); err == nil && !isLocal(hostURL.Scheme) {
		base.Host, base.Path = hostURL.Host, hostURL.Path
		if at.certPath != "" || hostURL.Scheme == "https" {
			base.Scheme = "https"
		}
	}
	opts = append(opts, client.WithScheme(base.Scheme))
	api, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, err
	}
	return &dockerEngine{api: api, base: base}, nil
}

func (e *dockerEngine) ping(ctx context.Context) error {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { e.conn.Store(peerOf(got.Conn)) },
	})
	pong, err := e.api.Ping(ctx)
	if err != nil && pong.APIVersion == "" { // an error response with a version still means that the engine is up
		return fmt.Errorf("pinging the engine: %w", advise(err))
	}
	e.api.NegotiateAPIVersionPing(pong)
	return nil
}

func (e *dockerEngine) version() string { return e.api.ClientVersion() }

func (e *dockerEngine) peer() peer {
	p, _ := e.conn.Load().(peer)
	return p
}

func (e *dockerEngine) close() { _ = e.api.Close() }

func eventFilter() filters.Args {
	wanted := filters.NewArgs(filters.Arg("type", "container"), filters.Arg("type", "network"))
	for action := range containerEvents {
		wanted.Add("event", action)
	}
	for _, action := range networkEvents {
		wanted.Add("event", action)
	}
	return wanted
}

func (e *dockerEngine) subscribe(ctx context.Context, since time.Time) (<-chan []event, <-chan error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(subscribeTimeout, func() {
		cancel(fmt.Errorf("the engine did not start the stream of events within %s", subscribeTimeout))
	})
	groups, errs := make(chan []event), make(chan error, 1)
	resp, err := e.get(ctx, "events", url.Values{"since": {strconv.FormatInt(since.Unix(), 10)}}, eventFilter())
	late.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		errs <- fmt.Errorf("subscribing to events: %w", err)
		return groups, errs
	}
	go func() {
		defer cancel(nil)
		defer resp.Body.Close()
		defer func() {
			if p := recover(); p != nil {
				errs <- recovered(p)
			}
		}()
		errs <- fmt.Errorf("reading the stream of events: %w", pump(ctx, resp.Body, groups))
	}()
	return groups, errs
}

func (e *dockerEngine) list(ctx context.Context, ids []string) ([]*container, error) {
	if ids == nil {
		return e.listOnce(ctx, filters.NewArgs())
	}
	var all []*container
	for len(ids) > 0 {
		n := min(len(ids), idsPerList)
		wanted := filters.NewArgs()
		for _, id := range ids[:n] {
			wanted.Add("id", id)
		}
		part, err := e.listOnce(ctx, wanted)
		if err != nil {
			return nil, err
		}
		all, ids = append(all, part...), ids[n:]
	}
	return all, nil
}

func (e *dockerEngine) listStopped(ctx context.Context) ([]*container, error) {
	return e.listOnce(ctx, filters.NewArgs(filters.Arg("status", "created"), filters.Arg("status", "exited"), filters.Arg("status", "dead")))
}

// listOnce decodes the response container by container. The client's ContainerList
// buffers the whole response in several forms: over 100 MB for 10,000 containers.
func (e *dockerEngine) listOnce(ctx context.Context, wanted filters.Args) ([]*container, error) {
	resp, err := e.get(ctx, "containers/json", url.Values{}, wanted)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	defer resp.Body.Close()
	list, err := decodeList(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("listing containers: reading the response: %w", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // allow the connection to be reused
	return list, nil
}

// rejectedError reports that the engine or a socket proxy does not permit a request.
type rejectedError struct{ error }

func (e *dockerEngine) stopSignal(ctx context.Context, id string) (Signal, error) {
	resp, err := e.send(ctx, "containers/"+id+"/json", url.Values{}, filters.NewArgs())
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusUnauthorized:
		return 0, &rejectedError{refusal(resp)}
	case http.StatusNotFound:
		if err := refusal(resp); !strings.Contains(strings.ToLower(err.Error()), "no such container") {
			return 0, &rejectedError{err}
		}
		return 0, nil // the container was removed
	default:
		return 0, refusal(resp)
	}
	var about struct {
		Config struct{ StopSignal json.RawMessage }
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, mostValue)).Decode(&about); err != nil {
		return 0, fmt.Errorf("inspecting a container: reading the response: %w", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // allow the connection to be reused
	var signal Signal
	_ = signal.UnmarshalJSON(about.Config.StopSignal) // unknown signals are ignored
	return signal, nil
}

func (e *dockerEngine) networks(ctx context.Context) (map[string]networkKind, error) {
	resp, err := e.get(ctx, "networks", url.Values{}, filters.NewArgs())
	if err != nil {
		return nil, fmt.Errorf("listing networks: %w", err)
	}
	defer resp.Body.Close()
	var list []struct {
		Name, Driver string
		Internal     bool
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, mostValue)).Decode(&list); err != nil {
		return nil, fmt.Errorf("listing networks: reading the response: %w", err)
	}
	kinds := make(map[string]networkKind, len(list))
	for _, n := range list {
		kinds[n.Name] = networkKind{n.Driver, n.Internal}
	}
	return kinds, nil
}

// get sends a GET request and returns an error unless the response is successful.
func (e *dockerEngine) get(ctx context.Context, what string, query url.Values, wanted filters.Args) (*http.Response, error) {
	resp, err := e.send(ctx, what, query, wanted)
	if err == nil && resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp, err
}

// send sends a GET request through the client's HTTP transport.
func (e *dockerEngine) send(ctx context.Context, what string, query url.Values, wanted filters.Args) (*http.Response, error) {
	at := e.base.JoinPath("v"+e.version(), what)
	if wanted.Len() > 0 {
		text, err := filters.ToJSON(wanted)
		if err != nil {
			return nil, err
		}
		query.Set("filters", text)
	}
	at.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.api.HTTPClient().Do(req)
	if err != nil {
		return nil, advise(err)
	}
	return resp, nil
}

// refusal returns an error for an unsuccessful response of the engine or of a proxy in
// front of it.
func refusal(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	var said struct{ Message string }
	text := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &said) == nil && said.Message != "" {
		text = said.Message
	}
	err := fmt.Errorf("the engine responded with %s: %.200s", resp.Status, text)
	if resp.StatusCode == http.StatusForbidden {
		err = errdefs.ErrPermissionDenied.WithMessage(err.Error())
	}
	return advise(err)
}

// advise adds remedies to common connection errors.
func advise(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "permission denied while"):
		return fmt.Errorf("%w (let the gateway's user read and write the socket, for example as a member of its group)", err)
	case errdefs.IsPermissionDenied(err):
		return fmt.Errorf("%w (let the socket proxy pass GET on /_ping, /events and /containers/json)", err)
	default:
		return err
	}
}
