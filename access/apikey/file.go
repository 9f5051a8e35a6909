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

// keyFiles holds the watched key files of the process, by path.
var keyFiles = caddy.NewUsagePool()

// The interval between checks for changes, and the age after which a modification time is
// considered final. A younger file can change again within the same timestamp.
const (
	lookEvery = time.Second
	settledBy = time.Second
)

// keyFile is a watched key file. If a reload fails, the keys of the last valid version
// stay in use.
type keyFile struct {
	path   string
	logger *zap.Logger
	keys   atomic.Pointer[keySet]

	mu      sync.Mutex  // held during a reload
	seen    os.FileInfo // file info at the last read; nil if the file was missing. Guarded by mu.
	settled bool        // whether any later change has another modification time. Guarded by mu.
	content digest      // digest of the content at the last read. Guarded by mu.
	err     error       // error of the last read. Guarded by mu.

	stop, stopped chan struct{}
}

// watchFile returns the shared watcher of a file and starts it if necessary. It fails if
// the file is unreadable or invalid.
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

// close releases the shared watcher.
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

// find returns the key that matches the presented one, or nil if it is unknown.
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
			f.logger.Error("reloading API keys failed, the previous keys stay valid", zap.String("file", f.path), zap.Error(err))
		case err == nil && (broken || after != before):
			f.logger.Info("reloaded API keys", zap.String("file", f.path), zap.Int("keys", len(*after)))
		}
		broken = err != nil
	}
}

// reload reloads the file if it has changed.
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

// read loads the keys unless the content is unchanged. The caller holds mu.
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
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.content = content
	f.keys.Store(&keys)
	return nil
}

// isUnchanged reports whether info matches the file at the last read. The caller holds
// mu.
func (f *keyFile) isUnchanged(info os.FileInfo) bool {
	return f.seen != nil && os.SameFile(f.seen, info) && f.seen.Size() == info.Size() && f.seen.ModTime().Equal(info.ModTime())
}
