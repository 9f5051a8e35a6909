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
	"github.com/docker/docker/api/types/events"
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
	subscribe(ctx context.Context, since time.Time) (<-chan event, <-chan error)
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

// The events that matter. Health checks alone emit three others at every run,
// which the engine must not even send.
var (
	containerEvents = map[events.Action]action{
		events.ActionStart:        actionStart,
		events.ActionKill:         actionKill,
		events.ActionDie:          actionEnd,
		events.ActionDestroy:      actionEnd,
		events.ActionPause:        actionPause,
		events.ActionUnPause:      actionOther,
		events.ActionRename:       actionOther,
		events.ActionHealthStatus: actionOther, // the engine compares the word before the colon
	}
	networkEvents = []events.Action{events.ActionConnect, events.ActionDisconnect}
)

func eventFilter() filters.Args {
	wanted := filters.NewArgs(
		filters.Arg("type", string(events.ContainerEventType)),
		filters.Arg("type", string(events.NetworkEventType)),
	)
	for action := range containerEvents {
		wanted.Add("event", string(action))
	}
	for _, action := range networkEvents {
		wanted.Add("event", string(action))
	}
	return wanted
}

func (e *dockerEngine) subscribe(ctx context.Context, since time.Time) (<-chan event, <-chan error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(subscribeTimeout, func() {
		cancel(fmt.Errorf("the engine did not begin to send within %s", subscribeTimeout))
	})
	messages, failures := e.api.Events(ctx, events.ListOptions{
		Since:   strconv.FormatInt(since.Unix(), 10),
		Filters: eventFilter(),
	})
	late.Stop()

	out, errs := make(chan event), make(chan error, 1)
	go func() {
		defer cancel(nil)
		for {
			select {
			case m := <-messages:
				ev, ok := parseEvent(m)
				if !ok {
					continue
				}
				select {
				case out <- ev:
				case <-ctx.Done():
				}
			case err := <-failures:
				if cause := context.Cause(ctx); cause != nil {
					err = cause
				}
				errs <- fmt.Errorf("reading the stream of events: %w", advise(err))
				return
			}
		}
	}()
	return out, errs
}

func parseEvent(m events.Message) (event, bool) {
	ev := event{id: m.Actor.ID, at: time.Unix(0, m.TimeNano)}
	if m.TimeNano == 0 {
		ev.at = time.Unix(m.Time, 0)
	}
	switch m.Type {
	case events.ContainerEventType:
		// The state behind "health_status:" is left alone: not every engine adds it.
		name, _, _ := strings.Cut(string(m.Action), ":")
		what, ok := containerEvents[events.Action(name)]
		if !ok {
			return ev, false
		}
		ev.action = what
		ev.signal, _ = strconv.Atoi(m.Actor.Attributes["signal"])
	case events.NetworkEventType:
		ev.id, ev.action = m.Actor.Attributes["container"], actionNetwork
	default:
		return ev, false
	}
	return ev, ev.id != ""
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

// listOnce reads the answer container by container and keeps what the rules
// need of each. The client's own call holds the whole answer in several forms
// at once, which at ten thousand containers is above a hundred megabytes.
func (e *dockerEngine) listOnce(ctx context.Context, wanted filters.Args) ([]*container, error) {
	at := e.base.JoinPath("v"+e.version(), "containers", "json")
	if wanted.Len() > 0 {
		query, err := filters.ToJSON(wanted)
		if err != nil {
			return nil, fmt.Errorf("listing containers: %w", err)
		}
		at.RawQuery = url.Values{"filters": {query}}.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	resp, err := e.api.HTTPClient().Do(req)
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", advise(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("listing containers: %w", refusal(resp))
	}
	list, err := decodeList(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("listing containers: reading the engine's answer: %w", err)
	}
	return list, nil
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
