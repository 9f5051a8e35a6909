package coalesce

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// streamRead reads a stream to its end, with a pause after each chunk.
func streamRead(r *reader, pause time.Duration) (body []byte, err error) {
	for {
		data, err := r.next(nil)
		if err != nil {
			return body, err
		}
		time.Sleep(pause)
		body = append(body, data...)
	}
}

func streamWrite(s *stream, body []byte, piece int, pause time.Duration) error {
	for len(body) > 0 {
		n := min(piece, len(body))
		if err := s.write(body[:n]); err != nil {
			return err
		}
		body = body[n:]
		time.Sleep(pause)
	}
	s.close(io.EOF)
	return nil
}

func TestStreamKeepsWhatIsNeeded(t *testing.T) {
	const second = time.Second
	body := coalesceBody(1 << 20)
	for _, tc := range []struct {
		what   string
		limit  int64
		pauses []time.Duration // pause of each reader after each 1 KiB
		behind []bool
	}{
		{"one reader", 4 << 10, []time.Duration{0}, []bool{false}},
		{"a slow one alone sets the pace", 4 << 10, []time.Duration{second}, []bool{false}},
		{"equally slow ones", 4 << 10, []time.Duration{second, second, second}, []bool{false, false, false}},
		{"somewhat slower", 4 << 10, []time.Duration{10 * second, 13 * second}, []bool{false, false}},
		{"much slower", 4 << 10, []time.Duration{second / 100, second / 10}, []bool{false, true}},
		{"stuck", 4 << 10, []time.Duration{0, second / 1000, time.Hour}, []bool{false, false, true}},
		{"stuck, but all is kept", 2 << 20, []time.Duration{0, time.Hour}, []bool{false, false}},
		{"all but one", 4 << 10, []time.Duration{time.Hour, time.Hour, 0}, []bool{true, true, false}},
		{"a buffer smaller than a piece", 1, []time.Duration{second, second}, []bool{false, false}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &stream{limit: tc.limit, patience: patience}
				var readers sync.WaitGroup
				for i, pause := range tc.pauses {
					r := s.reader()
					readers.Go(func() {
						got, err := streamRead(r, pause)
						wanted := io.EOF
						if tc.behind[i] {
							wanted = errBehind
						}
						if err != wanted || !bytes.HasPrefix(body, got) || err == io.EOF && len(got) != len(body) {
							t.Errorf("reader %d got %d bytes and %v, want %v", i, len(got), err, wanted)
						}
					})
				}
				if err := streamWrite(s, body, 1<<10, 0); err != nil {
					t.Error(err)
				}
				readers.Wait()
			})
		})
	}
}

// A stuck reader delays the others by at most one second in total.
func TestStreamStuckReaderCostsOneSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream{limit: 4 << 10, patience: patience}
		var others sync.WaitGroup
		defer others.Wait()
		start := time.Now()
		for range 3 {
			stuck := s.reader()
			others.Go(func() { _, _ = streamRead(stuck, 100*time.Hour) })
		}
		r := s.reader()
		others.Go(func() { _ = streamWrite(s, coalesceBody(1<<20), 1<<10, 0) })
		if _, err := streamRead(r, 0); err != io.EOF {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*patience {
			t.Errorf("the other took %s", took)
		}
	})
}

// The buffer is limited: at the limit, the writer waits.
func TestStreamIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream{limit: 64 << 10, patience: patience}
		r := s.reader()
		written := make(chan error)
		go func() { written <- streamWrite(s, coalesceBody(1<<20), 100, 0) }()
		synctest.Wait()
		s.mu.Lock()
		if s.last.cost > s.limit {
			t.Errorf("%d bytes are kept", s.last.cost)
		}
		s.mu.Unlock()
		r.leave() // no reader is left
		if err := <-written; err != errNoReaders {
			t.Errorf("the writer got %v", err)
		}
	})
}

func TestStreamEndsForReadersThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stream{limit: 1 << 10}
		r := s.reader()
		gone := make(chan struct{})
		close(gone)
		if _, err := r.next(gone); err != errLeft {
			t.Errorf("got %v", err)
		}
	})
}

func TestStreamFlushes(t *testing.T) {
	s := &stream{limit: 1 << 10}
	r := s.reader()
	s.flush()
	s.flush()
	if data, err := r.next(nil); len(data) > 0 || err != nil {
		t.Errorf("the header is not sent: %q, %v", data, err)
	}
	_ = s.write([]byte("ab"))
	_ = s.write([]byte("c"))
	s.flush()
	s.close(errAborted)
	var got []string
	for {
		data, err := r.next(nil)
		if err != nil {
			if err != errAborted {
				t.Error(err)
			}
			break
		}
		got = append(got, string(data))
	}
	if strings.Join(got, "|") != "ab|c|" {
		t.Errorf("got %q", got)
	}
}

func TestRestGoesOnWhereItBelongs(t *testing.T) {
	s := &stream{limit: 1 << 20}
	r := s.reader()
	for _, piece := range []string{"the first ", "half, ", "the second"} {
		_ = s.write([]byte(piece))
	}
	for had, left := range []string{"the first half, the second", "half, the second", "the second", ""} {
		for name, pieces := range map[string][]string{
			"whole":   {"the first half, the second"},
			"pieces":  {"the fi", "rst half, t", "he", " second"},
			"another": {"The first half, the second"},
			"changed": {"the first half; the second"},
			"short":   {"the "},
		} {
			var out strings.Builder
			w := newRest(r, &out)
			var err error
			for _, piece := range pieces {
				if err == nil {
					_, err = io.WriteString(w, piece)
				}
			}
			right := err == nil && w.whole()
			switch n := len("the first half, the second") - len(left); {
			case name == "whole" || name == "pieces":
				if !right || out.String() != left {
					t.Errorf("%d pieces, %s: got %q, %v", had, name, out.String(), err)
				}
			case right && n > 0 && !(name == "changed" && n <= len("the first half")):
				t.Errorf("%d pieces, %s: taken for the same", had, name)
			case !right && err != nil && !errors.Is(err, errChanged):
				t.Errorf("%d pieces, %s: %v", had, name, err)
			}
		}
		if had < 3 {
			_, _ = r.next(nil)
		}
	}
}
