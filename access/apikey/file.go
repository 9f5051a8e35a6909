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

// keyFiles are the watched files of the process by path.
var keyFiles = caddy.NewUsagePool()

// The interval of checks, and the minimum age of a change after which a later change has
// another modification time.
const (
	lookEvery = time.Second
	settledBy = time.Second
)

// keyFile is a watched file of keys. If it cannot be read, the keys of the last valid
// version stay.
type keyFile struct {
	path   string
	logger *zap.Logger
	keys   atomic.Pointer[keySet]

	mu      sync.Mutex  // held during a reload
	seen    os.FileInfo // of what was read last; nil if it was not there. Guarded by mu.
	settled bool        // a later change has another modification time. Guarded by mu.
	content digest      // what was read last. Guarded by mu.
	err     error       // what is wrong with it. Guarded by mu.

	stop, stopped chan struct{}
}

// watchFile starts to watch a file, or shares the watcher of others. It fails if the file
// cannot be read.
func watchFile(path string, logger *zap.Logger) (*keyFile, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	value, shared, err := keyFiles.LoadOrNew(path, func() (caddy.Destructor, error) {
		f := &keyFile{path: path, logger: logger, stop: make(chan struct{}), stopped: make(chan struct{})}
		if err := f.reload(); err != nil {
			return nil, err
		}
		go f.watch()
		return f, nil
	})
	if err != nil {
		return nil, err
	}
	f := value.(*keyFile)
	if !shared {
		return f, nil
	}
	if err := f.reload(); err != nil {
		_ = f.close()
		return nil, err
	}
	return f, nil
}

// close releases the file.
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

// find returns the key that a client presented; nil if it is unknown.
func (f *keyFile) find(presented string) *apiKey { return (*f.keys.Load()).find(presented) }

// watch checks the file for changes until stop is closed.
func (f *keyFile) watch() {
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
		before := f.keys.Load()
		err := f.reload()
		after := f.keys.Load()
		switch {
		case err != nil && !broken:
			f.logger.Error("API keys cannot be read, the previous ones stay valid", zap.String("file", f.path), zap.Error(err))
		case err == nil && (broken || after != before):
			f.logger.Info("API keys read", zap.String("file", f.path), zap.Int("keys", len(*after)))
		}
		broken = err != nil
	}
}

// reload reads the file if it has changed, and returns its error.
func (f *keyFile) reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && f.settled && f.isUnchanged(info) {
		return f.err
	}
	f.seen, f.settled = info, err == nil && time.Since(info.ModTime()) > settledBy
	if err == nil {
		err = f.read()
	}
	f.err = err
	return err
}

// read reads the keys, unless the content is unchanged. The caller holds mu.
func (f *keyFile) read() error {
	data, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	content := digest(sha256.Sum256(data))
	if f.err == nil && f.content == content {
		return nil
	}
	keys, err := parseKeys(data)
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.path, err)
	}
	f.content = content
	f.keys.Store(&keys)
	return nil
}

// isUnchanged reports whether the file is the one that was read last. The caller holds mu.
func (f *keyFile) isUnchanged(info os.FileInfo) bool {
	return f.seen != nil && os.SameFile(f.seen, info) && f.seen.Size() == info.Size() && f.seen.ModTime().Equal(info.ModTime())
}
