package stats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/DeRuina/timberjack"
	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(new(JSONLines))
}

// JSONLines is a sink that appends statistics to a file, as one line of JSON per series
// at every interval.
//
//	{"time":"…","gateway":"rgate","route":"/api","backend":"orders","requests_count":{…},"latency_ms":{…},"codes":{"200":7},…}
//
// The file is rolled when it reaches a maximum size. If a write fails, the lines of that
// interval are lost, and the next interval is written as usual.
type JSONLines struct {
	// The path of the file. Missing directories are created. Global placeholders such as
	// `{env.HOME}` are replaced when the configuration is loaded. Required.
	Filename string `json:"filename"`

	// The file size in MiB above which the file is rolled. Default: 100.
	RollSizeMB int `json:"roll_size_mb,omitempty"`

	// The maximum number of rolled files to keep. Default: 10.
	RollKeep int `json:"roll_keep,omitempty"`

	file *lineFile // nil until the first write
	key  fileKey
}

// CaddyModule returns the Caddy module information.
func (*JSONLines) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "rgate.stats.sinks.json_lines",
		New: func() caddy.Module { return new(JSONLines) },
	}
}

// Provision resolves the file name. The first write opens the file.
func (j *JSONLines) Provision(caddy.Context) error {
	name, err := caddy.NewReplacer().ReplaceOrErr(j.Filename, true, true)
	if err != nil {
		return fmt.Errorf("resolving filename of json_lines: %w", err)
	}
	j.key = fileKey{name, j.RollSizeMB, j.RollKeep}
	if j.key.sizeMB == 0 {
		j.key.sizeMB = 100
	}
	if j.key.keep == 0 {
		j.key.keep = 10
	}
	return nil
}

// Validate validates the options.
func (j *JSONLines) Validate() error {
	switch {
	case j.key.name == "":
		return errors.New("json_lines: filename is required: set the path of the file")
	case j.RollSizeMB < 0:
		return fmt.Errorf("json_lines: invalid roll_size_mb %d: must be at least 1", j.RollSizeMB)
	case j.RollKeep < 0:
		return fmt.Errorf("json_lines: invalid roll_keep %d: must be at least 1", j.RollKeep)
	}
	return nil
}

// Write appends a line for each series.
func (j *JSONLines) Write(ctx context.Context, s Snapshot) error {
	if j.file == nil {
		file, _, err := lineFiles.LoadOrNew(j.key, func() (caddy.Destructor, error) {
			return &lineFile{key: j.key}, nil
		})
		if err != nil {
			return err
		}
		j.file = file.(*lineFile)
	}
	for i := range s.Series {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("appending to %s: %w", j.key.name, err)
		}
		line, err := json.Marshal(jsonLine{s.Time.UTC(), s.Gateway, s.Series[i]})
		if err != nil {
			return fmt.Errorf("encoding statistics: %w", err)
		}
		if err := j.file.append(line); err != nil {
			return fmt.Errorf("appending to %s: %w", j.key.name, err)
		}
	}
	return nil
}

// Close releases the file.
func (j *JSONLines) Close() error {
	if j.file == nil {
		return nil
	}
	j.file = nil
	_, err := lineFiles.Delete(j.key)
	return err
}

type jsonLine struct {
	Time    time.Time `json:"time"`
	Gateway string    `json:"gateway"`
	SeriesSnapshot
}

// lineFiles holds the open files by name and options. During a reload, the old and the
// new configuration share a file, so that it is rolled only once.
var lineFiles = caddy.NewUsagePool()

type fileKey struct {
	name         string
	sizeMB, keep int
}

// lineFile is a file of lines that is rolled by size and reopened after an error.
type lineFile struct {
	key fileKey

	mu   sync.Mutex
	out  *timberjack.Logger // guarded by mu; nil if closed
	torn bool               // guarded by mu; whether the last line is incomplete
}

func (f *lineFile) append(line []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	line = append(line, '\n')
	if f.torn {
		line = append([]byte{'\n'}, line...)
	}
	if _, err := f.out.Write(line); err != nil {
		return errors.Join(err, f.closeFile())
	}
	f.torn = false
	return nil
}

// open opens the file and detects an incomplete last line, which a full disk or a crash
// can cause. The caller holds f.mu.
func (f *lineFile) open() (err error) {
	if err := os.MkdirAll(filepath.Dir(f.key.name), 0o700); err != nil {
		return err
	}
	if f.torn, err = endsWithinLine(f.key.name); err != nil {
		return err
	}
	f.out = &timberjack.Logger{
		Filename:    f.key.name,
		MaxSize:     f.key.sizeMB,
		MaxBackups:  f.key.keep,
		Compression: "gzip",
		FileMode:    0o600,
	}
	return nil
}

func endsWithinLine(name string) (bool, error) {
	file, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	if size, err := file.Seek(0, io.SeekEnd); err != nil || size == 0 {
		return false, err
	}
	last := make([]byte, 1)
	if _, err := file.Seek(-1, io.SeekEnd); err != nil {
		return false, err
	}
	_, err = io.ReadFull(file, last)
	return last[0] != '\n', err
}

// closeFile closes the file. The caller holds f.mu.
func (f *lineFile) closeFile() error {
	if f.out == nil {
		return nil
	}
	out := f.out
	f.out = nil
	return out.Close()
}

// Destruct closes the file when the last configuration releases it.
func (f *lineFile) Destruct() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closeFile()
}

// Interface guards
var (
	_ caddy.Provisioner = (*JSONLines)(nil)
	_ caddy.Validator   = (*JSONLines)(nil)
	_ Sink              = (*JSONLines)(nil)
)
