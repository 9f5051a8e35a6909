package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/websocket"
)

// serveEvents sends `n` server-sent events (default: 5; 0: endless) at an interval of
// `every` (default: 100ms).
func (s *service) serveEvents(w http.ResponseWriter, r *http.Request) {
	n, ok := number(r, "n")
	if !ok {
		n = 5
	}
	every, err := time.ParseDuration(r.URL.Query().Get("every"))
	if err != nil || every <= 0 {
		every = 100 * time.Millisecond
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(statusOf(r))

	controller := http.NewResponseController(w)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := int64(1); ; i++ {
		fmt.Fprintf(w, "id: %d\ndata: {\"n\":%d,\"container\":%q}\n\n", i, i, s.container)
		if controller.Flush() != nil || i == n {
			return
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}

// frame is a WebSocket message with its type, text or binary.
type frame struct {
	kind byte
	data []byte
}

var frames = websocket.Codec{
	Marshal: func(v any) ([]byte, byte, error) {
		f := v.(*frame)
		return f.data, f.kind, nil
	},
	Unmarshal: func(data []byte, kind byte, v any) error {
		*v.(*frame) = frame{kind: kind, data: data}
		return nil
	},
}

// serveWebSocket echoes messages with their type. It accepts any origin.
func (s *service) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	server := websocket.Server{
		Handshake: func(config *websocket.Config, _ *http.Request) error {
			config.Header = http.Header{"X-Service": {s.name}, "X-Container": {s.container}}
			return nil
		},
		Handler: func(conn *websocket.Conn) {
			var message frame
			for frames.Receive(conn, &message) == nil {
				if frames.Send(conn, &message) != nil {
					return
				}
			}
		},
	}
	server.ServeHTTP(w, r)
}

// upload is the response of /upload.
type upload struct {
	Service   string `json:"service"`
	Container string `json:"container"`
	Bytes     int64  `json:"bytes"`
	Error     string `json:"error,omitempty"`
}

func (s *service) serveUpload(w http.ResponseWriter, r *http.Request) {
	result := upload{Service: s.name, Container: s.container}
	var err error
	if result.Bytes, err = io.Copy(io.Discard, r.Body); err != nil {
		result.Error = err.Error()
	}
	writeJSON(w, statusOf(r), result)
}

func (s *service) serveTrailers(w http.ResponseWriter, r *http.Request) {
	// No Content-Length: HTTP/1 supports trailers only with chunked encoding.
	w.Header().Set("Trailer", "X-Body-Sha256")
	e := s.newEcho(r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(statusOf(r))
	_, _ = fmt.Fprintf(w, "{\"container\":%q,\"body_bytes\":%d}\n", e.Container, e.BodyBytes)
	_ = http.NewResponseController(w).Flush()
	w.Header().Set("X-Body-Sha256", e.BodySHA256)
	for name, values := range r.Trailer {
		w.Header()[http.TrailerPrefix+name] = values
	}
}

// serveGRPC echoes the body as a stream, like a bidirectional gRPC method. It ends with
// the status code in the query parameter `grpc`. Default: 0 (OK).
func serveGRPC(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	w.WriteHeader(http.StatusOK)
	controller := http.NewResponseController(w)
	// Without this, net/http stops reading an HTTP/1 body when the response starts.
	_ = controller.EnableFullDuplex()
	_ = controller.Flush()

	code, _ := number(r, "grpc")
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			_ = controller.Flush()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.Header().Set("Grpc-Message", err.Error())
			code = 13 // INTERNAL
			break
		}
	}
	w.Header().Set("Grpc-Status", strconv.FormatInt(code, 10))
}
