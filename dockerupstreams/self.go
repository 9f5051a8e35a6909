package dockerupstreams

import (
	"reflect"
	"strings"
)

// refreshSelf looks up the gateway's own container and updates the site. Guarded by mu.
func (w *watcher) refreshSelf() {
	if w.me.containerID != "" && len(w.ownID) < 64 {
		for id := range w.table.running {
			if strings.HasPrefix(id, w.me.containerID) {
				w.ownID = id
			}
		}
	}
	if _, touched := w.table.touched[w.ownID]; w.located && !touched {
		return
	}
	w.located = true
	at := locate(w.me, w.table.running[w.ownID], w.remoteHost(), w.kinds)
	at.self = w.ownID
	if at.engine != "" {
		at.routed = w.routed()
	}
	if reflect.DeepEqual(at, w.at) {
		return
	}
	w.at = at
	for id := range w.table.running {
		w.table.touch(id)
	}
}

// remoteHost returns the host of an engine on another machine, or "". Guarded by mu.
func (w *watcher) remoteHost() string {
	if w.peer.isLocal() {
		return ""
	}
	return w.addr.remoteHost()
}

// routed returns the networks of a remote engine that the gateway can reach: the
// configured networks, and the networks of the container through which the gateway
// reaches the engine. Guarded by mu.
func (w *watcher) routed() map[string]bool {
	routed := make(map[string]bool)
	for name := range strings.SplitSeq(w.addr.routed, "\n") {
		routed[name] = true
	}
	for _, c := range w.table.running {
		for _, n := range c.networks {
			if w.peer.is(n.ipv4) || w.peer.is(n.ipv6) {
				routed[n.name] = true
			}
		}
	}
	return routed
}

// newNetworks reports whether a container is attached to a network that was created after
// the networks were listed. Guarded by mu.
func (w *watcher) newNetworks(list []*container) bool {
	if w.kinds == nil {
		return false
	}
	for _, c := range list {
		for _, n := range c.networks {
			if _, known := w.kinds[n.name]; !known {
				return true
			}
		}
	}
	return false
}
