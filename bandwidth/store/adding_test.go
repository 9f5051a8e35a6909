package store

// Add adds bytes to the current minute that somebody else counted, such as another
// gateway that tells about them. The gateway names who. Bytes that nobody can have
// served in a minute are left out: negative numbers, and more than a petabyte.
func (l *Store) Add(gateway string, samples map[Key]Bytes) {
	at := floorTo(l.now().Unix(), minute)
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, n := range samples {
		if n.sane() {
			l.pending.addBytes(rowKey{at, cleanKey(gateway, key)}, n)
		}
	}
	l.bound()
}
