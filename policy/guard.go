package policy

// Guard decides which upstreams of its backend a request may be sent to, and learns
// what came of it. It is asked by one goroutine at a time.
type Guard interface {
	// Admits reports whether an upstream may be chosen. It does not have to be.
	Admits(address string) bool

	// Enter is called with the upstream that was chosen, before the request is sent
	// there. If the guard has changed its mind, another one is chosen.
	Enter(address string) bool

	// Left is called when the upstream that was entered has answered with a status,
	// or has failed. It is not if the request did not come that far.
	Left(status int, err error)
}

// GuardedExchange is an Exchange that asks a guard before it chooses an upstream.
type GuardedExchange interface {
	Exchange

	// Guard sets the guard, or none, and returns the one before it.
	Guard(Guard) (before Guard)
}

// Instance tells apart the containers that have, one after the other, the same address,
// and the runs of one container. It is empty for an address that does not belong to a container.
type Instance struct {
	ID      string // of the container
	Started int64  // its last start that was heard of, in nanoseconds since 1970; 0: none
}

// InstanceExchange is an Exchange that knows which container an upstream is.
type InstanceExchange interface {
	Exchange

	Instance(address string) Instance
}
