package apikey

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// keyFiles holds one follower per file, for as long as anybody uses it.
var keyFiles = caddy.NewUsagePool()

// How often a file is looked at, and how old a change must be so that none that
// comes after it could have the same time of modification.
const (
	lookEvery = time.Second
	settledBy = time.Second
)

// keyFile is a file of keys that is followed: when it changes, its keys do. Those
// of the last good version stay when it cannot be read.
type keyFile struct {
	path   string
	logger *zap.Logger
	ring   atomic.Pointer[keyring]

	mu      sync.Mutex  // one look at a time
	seen    os.FileInfo // of what was read last; nil if it was not there. Guarded by mu.
	settled bool        // no change can look like seen any more. Guarded by mu.
	content digest      // what was read last. Guarded by mu.
	err     error       // what is wrong with it. Guarded by mu.

	stop, stopped chan struct{}
}

// followKeys begins to follow a file, or shares what others follow. It is an error
// if the file cannot be read now.
func followKeys(path string, logger *zap.Logger) (*keyFile, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	value, shared, err := keyFiles.LoadOrNew(path, func() (caddy.Destructor, error) {
		f := &keyFile{path: path, logger: logger, stop: make(chan struct{}), stopped: make(chan struct{})}
		if err := f.look(); err != nil {
			return nil, err
		}
		go f.follow()
		return f, nil
	})
	if err != nil {
		return nil, err
	}
	f := value.(*keyFile)
	if !shared {
		return f, nil
	}
	if err := f.look(); err != nil {
		_ = f.close()
		return nil, err
	}
	return f, nil
}

// close ends what followKeys has begun.
func (f *keyFile) close() error {
	_, err := keyFiles.Delete(f.path)
	return err
}

// Destruct implements caddy.Destructor.
func (f *keyFile) Destruct() error {
	close(f.stop)
	<-f.stopped
	return nil
}

// find returns the key that a client has presented; nil if there is none such.
func (f *keyFile) find(presented string) *heldKey { return (*f.ring.Load()).find(presented) }

// follow looks at the file until it is told to stop.
func (f *keyFile) follow() {
	defer close(f.stopped)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	broken := false
	for {
		select {
		case <-f.stop:
			return
		case <-ticker.C:
		}
		before := f.ring.Load()
		err := f.look()
		after := f.ring.Load()
		switch {
		case err != nil && !broken:
			f.logger.Error("API keys cannot be read, the previous ones stay valid", zap.String("file", f.path), zap.Error(err))
		case err == nil && (broken || after != before):
			f.logger.Info("API keys read", zap.String("file", f.path), zap.Int("keys", len(*after)))
		}
		broken = err != nil
	}
}

// look reads the file if it has changed. It returns what is wrong with it.
func (f *keyFile) look() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.settled && f.isSeen(info) {
		return f.err
	}
	f.seen, f.settled = info, err == nil && time.Since(info.ModTime()) > settledBy
	if err == nil {
		err = f.read()
	}
	f.err = err
	return err
}

// read takes the keys from the file, unless they are those that were read last. The
// caller holds mu.
func (f *keyFile) read() error {
	data, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	content := digest(sha256.Sum256(data))
	if f.err == nil && f.content == content {
		return nil
	}
	ring, err := parseKeys(data)
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.path, err)
	}
	f.content = content
	f.ring.Store(&ring)
	return nil
}

// isSeen reports whether the file looks as it did when it was read last. The caller
// holds mu.
func (f *keyFile) isSeen(info os.FileInfo) bool {
	return f.seen != nil && os.SameFile(f.seen, info) && f.seen.Size() == info.Size() && f.seen.ModTime().Equal(info.ModTime())
}
