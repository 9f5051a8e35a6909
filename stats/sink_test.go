package stats

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// fakeSink is a sink that can fail or block.
type fakeSink struct {
	write  func(ctx context.Context, s Snapshot) error
	wrote  []uint64 // number of successes in each snapshot
	closed atomic.Int32
}

func (f *fakeSink) Write(ctx context.Context, s Snapshot) error {
	var n uint64
	for _, one := range s.Series {
		n += one.Requests.Success
	}
	f.wrote = append(f.wrote, n)
	if f.write == nil {
		return nil
	}
	return f.write(ctx, s)
}

func (f *fakeSink) Close() error {
	f.closed.Add(1)
	return nil
}

func TestSnapshotsGoOutAtEveryIntervalAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		s := rec.Series("/", "b")
		sink := new(fakeSink)
		r := startReporter(rec, []*outlet{{name: "fake", sink: sink}}, time.Minute, zap.NewNop())

		s.Record(200, time.Millisecond)
		time.Sleep(time.Minute + time.Second)
		s.Record(200, time.Millisecond)
		time.Sleep(time.Minute)
		s.Record(200, time.Millisecond)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if want := []uint64{1, 2, 3}; !slices.Equal(sink.wrote, want) {
			t.Errorf("snapshots had %v requests, want %v", sink.wrote, want)
		}
		if n := sink.closed.Load(); n != 1 {
			t.Errorf("the sink was closed %d times", n)
		}
		recent := r.recent.Snapshots()
		if len(recent) != 3 || recent[0].Series[0].Requests.Success != 1 || recent[2].Series[0].Sketch != nil {
			t.Errorf("in memory there is %+v", recent)
		}
	})
}

// TestNothingGoesOutIfNothingWasRecorded checks a configuration that is only validated.
// It is also provisioned and cleaned up.
func TestNothingGoesOutIfNothingWasRecorded(t *testing.T) {
	rec := NewRecorder("g")
	rec.Series("/", "b")
	sink := new(fakeSink)
	r := startReporter(rec, []*outlet{{name: "fake", sink: sink}}, time.Minute, zap.NewNop())
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if len(sink.wrote) != 0 || sink.closed.Load() != 1 {
		t.Errorf("written %v, closed %d times", sink.wrote, sink.closed.Load())
	}
}

func TestAFailingSinkIsLoggedOnceAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		rec.Series("/", "b").Record(200, time.Millisecond)
		var calls int
		bad := &fakeSink{write: func(context.Context, Snapshot) error {
			switch calls++; calls {
			case 1, 2:
				return errors.New("no space left")
			case 3:
				panic("out of bounds")
			}
			return nil
		}}
		good := new(fakeSink)
		core, logs := observer.New(zap.DebugLevel)
		r := startReporter(rec, []*outlet{{name: "bad", sink: bad}, {name: "good", sink: good}}, time.Minute, zap.New(core))
		time.Sleep(5*time.Minute + time.Second)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		var lines []string
		for _, e := range logs.All() {
			lines = append(lines, e.Message)
			if e.ContextMap()["sink"] != "bad" {
				t.Errorf("logged about sink %v", e.ContextMap()["sink"])
			}
		}
		if want := []string{"stats sink failed", "stats sink recovered"}; !slices.Equal(lines, want) {
			t.Errorf("logged %q, want %q", lines, want)
		}
		if n := logs.All()[1].ContextMap()["dropped"]; n != int64(3) {
			t.Errorf("dropped %v, want 3", n)
		}
		if len(good.wrote) != 6 {
			t.Errorf("the other sink got %d snapshots, want 6", len(good.wrote))
		}
	})
}

func TestASlowSinkIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		rec.Series("/", "b").Record(200, time.Millisecond)
		slow := &fakeSink{write: func(ctx context.Context, _ Snapshot) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		r := startReporter(rec, []*outlet{{name: "slow", sink: slow}}, time.Minute, zap.NewNop())
		time.Sleep(time.Minute + time.Second) // during the write
		began := time.Now()
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > finalTimeout {
			t.Errorf("stopping took %s, want at most %s", took, finalTimeout)
		}
		if len(slow.wrote) != 2 {
			t.Errorf("%d writes, want 2", len(slow.wrote))
		}
	})
}

func TestASinkThatHangsDoesNotHoldUpAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := NewRecorder("g")
		rec.Series("/", "b").Record(200, time.Millisecond)
		release := make(chan struct{})
		stuck := &fakeSink{write: func(context.Context, Snapshot) error { <-release; return nil }}
		r := startReporter(rec, []*outlet{{name: "stuck", sink: stuck}}, time.Minute, zap.NewNop())
		if err := r.stop(); err == nil {
			t.Error("no error, although the sink does not return")
		}
		close(release)
		<-r.done
	})
}

func TestMemoryKeepsTheLast(t *testing.T) {
	m := NewMemory(3)
	for i := range 5 {
		if err := m.Write(t.Context(), Snapshot{Time: time.Unix(int64(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	got := m.Snapshots()
	if len(got) != 3 || got[0].Time.Unix() != 2 || got[2].Time.Unix() != 4 {
		t.Errorf("kept %v", got)
	}
}
