package logging

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A few of equal messages are written, whatever policy and route they come from, with
// their names and fields.
func TestSampledLoggersCountTogether(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	first := Sampled(zap.New(core).Named("first")).With(zap.String("route", "/a"))
	second := Sampled(zap.New(core).Named("second"))
	for range 100 {
		first.Info(t.Name(), zap.Int("status", 401))
		second.Info(t.Name())
		first.Debug(t.Name()) // is off, and must not be written
	}
	if n := logs.Len(); n < 5 || n > 10 { // the second may end meanwhile
		t.Errorf("%d lines of 200 were written, want 5 per second", n)
	}
	one := logs.All()[0]
	if one.LoggerName != "first" || one.ContextMap()["route"] != "/a" || one.ContextMap()["status"] != int64(401) {
		t.Errorf("the first line is %+v", one)
	}
	second.Info(t.Name() + " of another kind")
	if logs.FilterMessage(t.Name()+" of another kind").Len() != 1 {
		t.Error("another message was not written")
	}
}
