package dockerupstreams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
)

// An engine is a connection to a container engine. Its calls need no more than
// GET on /_ping, /events and /containers/json.
type engine interface {
	// ping makes sure that the engine answers, and agrees with it on the version
	// of its API. It comes before all other calls.
	ping(ctx context.Context) error
	// subscribe opens the stream of container events from a moment on and returns
	// when the engine has accepted it. The stream ends with ctx, or with an error.
	subscribe(ctx context.Context, since time.Time) (<-chan []event, <-chan error)
	// list returns the containers with these IDs that run, or (nil) all that run.
	list(ctx context.Context, ids []string) ([]*container, error)
	// version is the API version agreed on.
	version() string
	// close gives up what the engine holds. Streams end by their own context.
	close()
}

const (
	// The longest time in which an engine must accept the stream of events.
	subscribeTimeout = 10 * time.Second

	// How many IDs are asked for at once: proxies bound the length of a URL,
	// HAProxy at 15 KiB.
	idsPerList = 64
)

// dockerEngine is an engine that speaks the Docker Engine API, 1.24 or newer.
type dockerEngine struct {
	api  *client.Client
	base url.URL
}

// openEngine makes a client for an address. It does not connect, but it reads
// the certificates.
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
	pong, err := e.api.Ping(ctx)
	if err != nil && pong.APIVersion == "" { // otherwise it is there, and lists will tell how well
		return fmt.Errorf("pinging the engine: %w", advise(err))
	}
	e.api.NegotiateAPIVersionPing(pong)
	return nil
}

func (e *dockerEngine) version() string { return e.api.ClientVersion() }

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
		cancel(fmt.Errorf("the engine did not begin to send within %s", subscribeTimeout))
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

// listOnce reads the answer container by container. The client's own call holds
// the whole of it in several forms at once, which at ten thousand containers is
// above a hundred megabytes.
func (e *dockerEngine) listOnce(ctx context.Context, wanted filters.Args) ([]*container, error) {
	resp, err := e.get(ctx, "containers/json", url.Values{}, wanted)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	defer resp.Body.Close()
	list, err := decodeList(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("listing containers: reading the engine's answer: %w", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	return list, nil
}

// get asks for something, by the client's own connection.
func (e *dockerEngine) get(ctx context.Context, what string, query url.Values, wanted filters.Args) (*http.Response, error) {
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
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp, nil
}

// refusal is the error that an engine, or a proxy before it, answered with.
func refusal(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	var said struct{ Message string }
	text := strings.TrimSpace(string(body))
	if json.Unmarshal(body, &said) == nil && said.Message != "" {
		text = said.Message
	}
	err := fmt.Errorf("the engine answered %s: %.200s", resp.Status, text)
	if resp.StatusCode == http.StatusForbidden {
		err = errdefs.ErrPermissionDenied.WithMessage(err.Error())
	}
	return advise(err)
}

// advise adds the remedy to errors that everybody meets once.
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
