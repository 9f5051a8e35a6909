package dockerupstreams

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestDecodeEvent(t *testing.T) {
	for text, want := range map[string]event{
		`{"Type":"container","Action":"start","Actor":{"ID":"a","Attributes":{"image":"x","signal":"9"}},"scope":"local","time":5,"timeNano":5000000007}`: {id: "a", action: actionStart, signal: 9, at: time.Unix(5, 7)},
		`{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"signal":"15"}},"time":5}`:                                                   {id: "a", action: actionKill, signal: 15, at: time.Unix(5, 0)},
		`{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"signal":"the label of someone"}},"time":5}`:                                 {id: "a", action: actionKill, at: time.Unix(5, 0)},
		`{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"a"},"time":5}`:                                                              {id: "a", action: actionHealthy, at: time.Unix(5, 0)},
		`{"Type":"container","Action":"health_status","Actor":{"ID":"a","Attributes":null},"time":5}`:                                                     {id: "a", action: actionOther, at: time.Unix(5, 0)},
		`{"Type":"network","Action":"disconnect","Actor":{"ID":"n","Attributes":{"container":"a"}},"time":5}`:                                             {id: "a", action: actionNetwork, at: time.Unix(5, 0)},
		`{"Type":"container","Action":"health_status: unhealthy","Actor":{"ID":"a"},"time":5}`:                                                            {id: "a", action: actionOther, at: time.Unix(5, 0)},
		// Podman
		`{"status":"died","id":"a","from":"x","Type":"container","Action":"died","Actor":{"ID":"a"},"time":5}`: {id: "a", action: actionEnd, at: time.Unix(5, 0)},
		`{"Type":"container","Action":"remove","Actor":{"ID":"a"},"time":5}`:                                   {id: "a", action: actionEnd, at: time.Unix(5, 0)},
		`{"Type":"network","Action":"connect","Actor":{"ID":"a","Attributes":{"name":"x"}},"time":5}`:          {id: "a", action: actionNetwork, at: time.Unix(5, 0)},
	} {
		got, matters, err := decodeEvent([]byte(text))
		if err != nil || !matters || got != want {
			t.Errorf("%s: %+v, %v, %v, want %+v", text, got, matters, err, want)
		}
	}
	for _, text := range []string{
		`{}`, `{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"a"}}`, `{"Type":"image","Action":"start","Actor":{"ID":"a"}}`,
		`{"Type":"container","Action":"start","Actor":{}}`, `{"Type":"network","Action":"connect","Actor":{}}`,
	} {
		if _, matters, err := decodeEvent([]byte(text)); err != nil || matters {
			t.Errorf("%s matters: %v, %v", text, matters, err)
		}
	}
	for _, text := range []string{`{"time":"x"}`, `{"Type":3}`, `{"Type"}`, `{"Type":"a" "b"}`, `[]`, `{"Actor":[]}`, `{"a":}`, `{"a":"`, `{"a":{`, `{"a":[1,`} {
		if _, _, err := decodeEvent([]byte(text)); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// Objects can arrive in chunks of any size. A complete object is returned without
// waiting for more data.
func TestValuesInPieces(t *testing.T) {
	const text = " {\"a\":\"}{\\\"\"}\n{\"b\":[{},{\"c\":\"\\\\\"}]}\r\n\n{}"
	for _, from := range []io.Reader{
		strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text)),
	} {
		in := newValues(from)
		var got []string
		for {
			value, err := in.next()
			if err != nil {
				break
			}
			got = append(got, string(value))
		}
		if want := []string{`{"a":"}{\""}`, `{"b":[{},{"c":"\\"}]}`, `{}`}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	in := newValues(strings.NewReader(`{"a":1}  {"b"`))
	if err := in.more(); err != nil {
		t.Fatal(err)
	}
	if value, err := in.buffered(); string(value) != `{"a":1}` || err != nil {
		t.Errorf("first: %s, %v", value, err)
	}
	if value, err := in.buffered(); value != nil || err != nil {
		t.Errorf("second: %s, %v, want to wait for the rest", value, err)
	}
	if _, err := in.next(); err != io.ErrUnexpectedEOF {
		t.Errorf("a stream cut within a value: %v", err)
	}
	endless := newValues(io.MultiReader(strings.NewReader(`{"a":"`), iotest.OneByteReader(endlessReader{})))
	endless.buf = append(make([]byte, 0, mostValue), strings.Repeat("{", mostValue-1)...)
	if _, err := endless.next(); err != errTooLarge {
		t.Errorf("a value without an end: %v, want %v", err, errTooLarge)
	}
}

type endlessReader struct{}

func (endlessReader) Read(p []byte) (int, error) { return copy(p, "x"), nil }

// The scanner returns the same values as encoding/json for valid input. It does not
// hang or panic for any input.
func FuzzDecodeContainer(f *testing.F) {
	f.Add(`{"Id":"a","Names":["/b"],"Labels":{"app":"w\"e\u00e9b"},"State":"running","Status":"Up (healthy)"}`)
	f.Add(`{"Id":"a","Labels":null,"Health":{"Status":"starting"},"HostConfig":{"NetworkMode":"host"},"Mounts":[{"x":[1,2,{}]}]}`)
	f.Add(`{"Id":"a","NetworkSettings":{"Networks":{"n":{"IPAddress":"10.0.0.2","DriverOpts":null},"m":null}},"Ports":[{"IP":"::","PrivatePort":80,"PublicPort":81,"Type":"tcp"}]}`)
	f.Add(`{"Id":"a","SizeRw":-1.5e3,"Created":17,"x":true,"Ports":[]} `)
	f.Add(`{"Id":"a","Ports":[{"PrivatePort":99999999999999999999}]}`)
	f.Add(`{"Id":"a\`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := decodeContainer([]byte(text))
		var want struct {
			ID     string `json:"Id"`
			Labels map[string]string
			State  string
		}
		var raw map[string]json.RawMessage
		if err != nil || json.Unmarshal([]byte(text), &raw) != nil || !exactNames(raw) || json.Unmarshal([]byte(text), &want) != nil {
			return
		}
		if !strings.Contains(text, "\ufffd") && strings.ToValidUTF8(text, "\ufffd") == text && !repeats(text) &&
			(c.id != want.ID || c.state != want.State || !maps.Equal(c.labels, want.Labels)) {
			t.Errorf("%s: %+v, want %+v", text, c, want)
		}
	})
}

// exactNames reports whether no name differs from a known name only in case.
// encoding/json matches names case-insensitively.
func exactNames(raw map[string]json.RawMessage) bool {
	for name := range raw {
		for _, exact := range []string{"Id", "Labels", "State"} {
			if name != exact && strings.EqualFold(name, exact) {
				return false
			}
		}
	}
	return true
}

// repeats reports whether the text may contain duplicate members. encoding/json merges
// duplicate maps.
func repeats(text string) bool {
	return strings.Count(text, "Labels") > 1 || strings.Count(text, "Id") > 1 || strings.Count(text, "State") > 1 ||
		strings.Contains(text, `\u`)
}
