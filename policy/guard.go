package policy

// UpstreamGuard decides which upstreams of its backend a request may be sent to, and learns
// what came of it. It is asked by one goroutine at a time.
type UpstreamGuard interface {
	// Allows reports whether an upstream may be chosen. It does not have to be.
	Allows(address string) bool

	// Begin is called with the upstream that was chosen, before the request is sent
	// there. If the guard has changed its mind, another one is chosen.
	Begin(address string) bool

	// End is called when the upstream that was begun has responded with a status,
	// or has failed. It is not if the request did not come that far.
	End(status int, err error)
}

// GuardSetter is a RequestState that asks a guard before it chooses an upstream.
type GuardSetter interface {
	RequestState

	// SetGuard sets the guard, or none, and returns the one before it.
	SetGuard(UpstreamGuard) (before UpstreamGuard)
}

// Instance tells apart the containers that have, one after the other, the same address,
// and the runs of one container. It is empty for an address that does not belong to a container.
type Instance struct {
	ID      string // of the container
	Started int64  // its last start that was heard of, in nanoseconds since 1970; 0: none
}

// InstanceResolver is a RequestState that knows which container an upstream is.
type InstanceResolver interface {
	RequestState

	Instance(address string) Instance
}
