package logging

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Of equal messages, a few are written, with their names and fields. The policy and
// route of the messages make no difference.
func TestSampledLoggersCountTogether(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	first := Sampled(zap.New(core).Named("first")).With(zap.String("route", "/a"))
	second := Sampled(zap.New(core).Named("second"))
	for range 100 {
		first.Info(t.Name(), zap.Int("status", 401))
		second.Info(t.Name())
		first.Debug(t.Name()) // the level is disabled
	}
	if n := logs.Len(); n < 5 || n > 10 { // a new sampling interval may begin during the test
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
