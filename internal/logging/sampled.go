// Package logging limits the number of log entries that requests cause.
package logging

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Sampled returns a logger that writes the first 5 equal messages per second, then every
// 1000th, so that a misbehaving client or an outage cannot flood the log. All sampled
// loggers share one sampler, whose counters use 448 KiB. Messages of Provision must not
// be sampled.
func Sampled(logger *zap.Logger) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return sampledCore{core} }))
}

// sampler decides which entries are written.
var sampler = zapcore.NewSamplerWithOptions(admitting{zapcore.NewNopCore()}, time.Second, 5, 1000)

// admitting is the core behind the sampler. It marks the entries that the sampler
// admits.
type admitting struct{ zapcore.Core }

var admitted = new(zapcore.CheckedEntry)

func (admitting) Enabled(zapcore.Level) bool { return true }

func (admitting) Check(zapcore.Entry, *zapcore.CheckedEntry) *zapcore.CheckedEntry { return admitted }

// sampledCore is a core that writes only the entries that the sampler admits.
type sampledCore struct{ zapcore.Core }

// With implements zapcore.Core.
func (c sampledCore) With(fields []zapcore.Field) zapcore.Core {
	return sampledCore{c.Core.With(fields)}
}

// Check implements zapcore.Core.
func (c sampledCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(entry.Level) || sampler.Check(entry, nil) != admitted {
		return checked
	}
	return c.Core.Check(entry, checked)
}
