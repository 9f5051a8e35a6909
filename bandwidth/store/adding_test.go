package store

// Add adds bytes that another gateway counted to the current minute. It ignores negative
// values and values above maxSample.
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
