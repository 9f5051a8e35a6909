package dockertest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// message is an event in the engine's JSON format.
type message struct {
	Type   string
	Action string
	Actor  struct {
		ID         string
		Attributes map[string]string
	}
	Time     int64 `json:"time"`
	TimeNano int64 `json:"timeNano"`
}

const (
	// Similar to the limits of Docker.
	historySize = 256
	streamSize  = 4096

	newestAPI = "1.51"
)

// emit sends an event to all streams. Guarded by mu.
func (e *Engine) emit(kind, action, id string, attributes map[string]string) {
	now := time.Now().Add(-e.ago)
	m := message{Type: kind, Action: action, Time: now.Unix(), TimeNano: now.UnixNano()}
	m.Actor.ID, m.Actor.Attributes = id, map[string]string{}
	if c := e.containers[id]; c != nil {
		for k, v := range c.Labels {
			m.Actor.Attributes[k] = v
		}
		m.Actor.Attributes["name"] = c.Name
	}
	for k, v := range attributes {
		m.Actor.Attributes[k] = v
	}
	if e.muted {
		return
	}
	e.history = append(e.history, m)
	if len(e.history) > historySize {
		e.history = e.history[1:]
	}
	for stream := range e.streams {
		select {
		case stream <- m:
		default: // like Docker, drop events of slow readers
		}
	}
}

func (e *Engine) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", e.ping)
	mux.HandleFunc("GET /{version}/containers/json", e.list)
	mux.HandleFunc("GET /{version}/containers/{id}/json", e.inspect)
	mux.HandleFunc("GET /{version}/events", e.events)
	mux.HandleFunc("GET /{version}/networks", e.networks)
	return mux
}

// refuse writes an error response if the faults contain one for the path or the API
// version is too new, and reports whether it did. It also returns the current faults.
func (e *Engine) refuse(w http.ResponseWriter, r *http.Request, path string) (Faults, bool) {
	e.mu.Lock()
	faults := e.faults
	version := strings.TrimPrefix(r.PathValue("version"), "v")
	if version != "" {
		e.counts.Versions[version]++
	}
	e.mu.Unlock()
	if status := faults.Refuse[path]; status != 0 {
		fail(w, status, "refused")
		return faults, true
	}
	if newest := faults.newest(); version != "" && minor(version) > minor(newest) {
		fail(w, http.StatusBadRequest, "client version "+version+" is too new. Maximum supported API version is "+newest)
		return faults, true
	}
	return faults, false
}

func (f Faults) newest() string {
	if f.APIVersion != "" {
		return f.APIVersion
	}
	return newestAPI
}

func minor(version string) int {
	_, after, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(after)
	return n
}

func fail(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": text})
}

func (e *Engine) ping(w http.ResponseWriter, r *http.Request) {
	faults, refused := e.refuse(w, r, "/_ping")
	if refused {
		return
	}
	if faults.PingHold != nil {
		e.mu.Lock()
		e.counts.HeldPings++
		e.mu.Unlock()
		select {
		case <-faults.PingHold:
		case <-r.Context().Done():
			return
		}
	}
	if r.Method == http.MethodGet || faults.PingStatus == 0 {
		e.mu.Lock()
		e.counts.Pings++
		e.mu.Unlock()
	}
	w.Header().Set("Api-Version", faults.newest())
	w.Header().Set("Ostype", "linux")
	if faults.PingStatus != 0 {
		w.WriteHeader(faults.PingStatus)
	}
	_, _ = w.Write([]byte("OK"))
}

func (e *Engine) list(w http.ResponseWriter, r *http.Request) {
	faults, refused := e.refuse(w, r, "/containers/json")
	if refused {
		return
	}
	ids := filter(r, "id")
	e.mu.Lock()
	if ids == nil {
		e.counts.Lists++
	} else {
		e.counts.Partial++
	}
	// Build the response before the delay: a slow engine reports old state.
	all := make([]any, 0, len(ids))
	if ids == nil {
		ids = e.order
	}
	for _, id := range ids {
		c := e.containers[id]
		if last, ok := e.before[id]; ok && time.Since(last.at) < faults.ListLag {
			c = &last.was
		}
		if c != nil && c.State != "exited" && c.State != "created" {
			all = append(all, c.summary())
		}
	}
	e.counts.Containers += len(all)
	e.mu.Unlock()

	if faults.ListDelay > 0 {
		select {
		case <-time.After(faults.ListDelay):
		case <-r.Context().Done():
			return
		}
	}
	switch {
	case faults.ListStatus != 0:
		fail(w, faults.ListStatus, "something is wrong")
	case faults.ListBody != "":
		_, _ = w.Write([]byte(faults.ListBody))
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(all)
	}
}

// summary returns the container as an item of the response to a list.
func (c *Container) summary() any {
	status := c.Status
	if status == "" {
		status = "Up 1 second"
	}
	switch {
	case c.State == "paused":
		status += " (Paused)"
	case c.Health == "starting":
		status += " (health: starting)"
	case c.Health != "":
		status += " (" + c.Health + ")"
	}
	return map[string]any{
		"Id": c.ID, "Names": []string{"/" + c.Name}, "Image": "backend", "ImageID": "sha256:0", "Command": "/backend",
		"Created": 1700000000, "Ports": slices.Clone(c.Ports), "Labels": c.Labels, "State": c.State, "Status": status,
		"HostConfig":      map[string]string{"NetworkMode": c.NetworkMode},
		"NetworkSettings": map[string]any{"Networks": c.Networks},
		"Mounts":          []any{},
	}
}

func (e *Engine) inspect(w http.ResponseWriter, r *http.Request) {
	if _, refused := e.refuse(w, r, "/containers/{id}/json"); refused {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counts.Inspected++
	c := e.containers[r.PathValue("id")]
	if c == nil {
		fail(w, http.StatusNotFound, "No such container: "+r.PathValue("id"))
		return
	}
	config := map[string]any{"Env": []string{"SECRET=1"}, "Labels": c.Labels}
	if c.StopSignal != "" {
		config["StopSignal"] = c.StopSignal
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"Id": c.ID, "Name": "/" + c.Name, "Config": config})
}

func (e *Engine) networks(w http.ResponseWriter, r *http.Request) {
	if _, refused := e.refuse(w, r, "/networks"); refused {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := make(map[string]bool)
	list := []map[string]any{}
	for _, c := range e.containers {
		for name, n := range c.Networks {
			if !seen[name] {
				seen[name] = true
				list = append(list, map[string]any{"Name": name, "Driver": cmp.Or(n.Driver, "bridge"), "Internal": n.Internal})
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

func (e *Engine) events(w http.ResponseWriter, r *http.Request) {
	if _, refused := e.refuse(w, r, "/events"); refused {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	control := http.NewResponseController(w)
	_ = control.Flush() // like Docker, send the header before the first event

	wanted := filter(r, "event")
	since, _ := strconv.ParseInt(r.URL.Query().Get("since"), 10, 64)
	stream, cut := make(chan message, streamSize), make(chan struct{})
	e.mu.Lock()
	e.counts.Streams++
	if since != 0 {
		for _, m := range e.history {
			if m.Time >= since {
				stream <- m
			}
		}
	}
	e.streams[stream] = cut
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.streams, stream)
		e.mu.Unlock()
	}()

	out := json.NewEncoder(w)
	for {
		select {
		case m := <-stream:
			// The filter compares the part before the colon.
			word, _, _ := strings.Cut(m.Action, ":")
			if wanted != nil && !slices.Contains(wanted, word) {
				continue
			}
			if out.Encode(m) != nil || control.Flush() != nil {
				return
			}
		case <-cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// filter returns the sorted values of a filter, or nil if the filter is missing.
func filter(r *http.Request, name string) []string {
	var filters map[string]map[string]bool
	_ = json.Unmarshal([]byte(r.URL.Query().Get("filters")), &filters)
	values := filters[name]
	if values == nil {
		return nil
	}
	all := make([]string, 0, len(values))
	for value := range values {
		all = append(all, value)
	}
	slices.Sort(all)
	return all
}
