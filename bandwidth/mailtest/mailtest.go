// Package mailtest provides an in-process SMTP server for tests, with STARTTLS,
// authentication and configurable failures.
package mailtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// The credentials that the server accepts.
const (
	User     = "rgate"
	Password = "correct horse"
)

// Message is a message that the server has accepted.
type Message struct {
	From       string
	To         []string // envelope recipients
	User       string   // authenticated user
	TLS        bool
	Header     mail.Header
	Subject    string
	Plain      string
	HTML       string
	Undecoded  string
	AcceptedAt time.Time
}

// Server is an SMTP server.
type Server struct {
	Address string
	CAFile  string // PEM file of the certificate that clients must trust

	t        testing.TB
	implicit bool
	config   *tls.Config
	server   *smtp.Server
	listener net.Listener

	mu       sync.Mutex
	messages []Message          // Guarded by mu.
	attempts int                // number of connections. Guarded by mu.
	replies  map[string][]error // next replies by command. Guarded by mu.
}

// Start starts a server that requires STARTTLS and authentication. It runs until the test
// ends.
func Start(t testing.TB) *Server { return start(t, false) }

// StartImplicit starts a server with implicit TLS.
func StartImplicit(t testing.TB) *Server { return start(t, true) }

func start(t testing.TB, implicit bool) *Server {
	t.Helper()
	certificate, file := selfSigned(t)
	s := &Server{
		CAFile: file, t: t, implicit: implicit, replies: make(map[string][]error),
		config: &tls.Config{Certificates: []tls.Certificate{certificate}},
	}
	s.Restart()
	t.Cleanup(s.Stop)
	return s
}

// Restart starts the server again at the same address.
func (s *Server) Restart() {
	s.t.Helper()
	address := s.Address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Fatalf("listening for mail: %v", err)
	}
	s.Address = listener.Addr().String()
	s.server = smtp.NewServer(smtp.BackendFunc(s.session))
	s.server.Domain, s.server.TLSConfig = "mail.example.com", s.config
	s.server.ErrorLog = log.New(io.Discard, "", 0)
	if s.implicit {
		listener = tls.NewListener(listener, s.config)
	}
	server := s.server
	s.listener = listener
	go func() { _ = server.Serve(listener) }() // until it is closed
}

// Stop stops the server.
func (s *Server) Stop() {
	_ = s.listener.Close() // the server may not have registered the listener yet
	_ = s.server.Close()
}

// Reply sets the status code of the next replies to a command (MAIL, RCPT, DATA, AUTH).
func (s *Server) Reply(command string, code, times int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range times {
		s.replies[command] = append(s.replies[command], &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: "configured by the test"})
	}
}

// Refuse makes the server reject a recipient permanently.
func (s *Server) Refuse(recipient string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replies[recipient] = []error{&smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}}
}

func (s *Server) next(command string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.replies[command]
	if len(list) == 0 {
		return nil
	}
	if !strings.Contains(command, "@") {
		s.replies[command] = list[1:]
	}
	return list[0]
}

// Messages returns the messages that the server has accepted.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.messages...)
}

// MustHave fails the test unless the accepted messages have exactly these subjects.
func (s *Server) MustHave(t testing.TB, when string, subjects ...string) {
	t.Helper()
	var got []string
	for _, m := range s.Messages() {
		got = append(got, m.Subject)
	}
	if !slices.Equal(got, subjects) {
		t.Fatalf("%s: the mail is %q, want %q", when, got, subjects)
	}
}

// Attempts returns the number of connections.
func (s *Server) Attempts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attempts
}

func (s *Server) session(conn *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// After STARTTLS, a second session starts on the same connection.
	if _, encrypted := conn.TLSConnectionState(); !encrypted || s.implicit {
		s.attempts++
	}
	return &session{server: s, conn: conn}, nil
}

// session is a client session.
type session struct {
	server *Server
	conn   *smtp.Conn
	user   string
	from   string
	to     []string
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if err := s.server.next("AUTH"); err != nil {
			return err
		}
		if user != User || password != Password {
			return smtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.user == "" {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return s.server.next("MAIL")
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := s.server.next(to); err != nil {
		return err
	}
	if err := s.server.next("RCPT"); err != nil {
		return err
	}
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.server.next("DATA"); err != nil {
		return err
	}
	m, err := parse(string(raw))
	if err != nil {
		return err
	}
	m.From, m.To, m.User, m.AcceptedAt = s.from, s.to, s.user, time.Now()
	_, m.TLS = s.conn.TLSConnectionState()
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.messages = append(s.server.messages, m)
	return nil
}

func (s *session) Reset() { s.from, s.to = "", nil }

func (s *session) Logout() error { return nil }

// parse parses a message with a plain and an HTML part.
func parse(raw string) (Message, error) {
	m := Message{Undecoded: raw}
	parsed, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		return m, err
	}
	m.Header = parsed.Header
	if m.Subject, err = new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject")); err != nil {
		return m, err
	}
	_, options, err := mime.ParseMediaType(parsed.Header.Get("Content-Type"))
	if err != nil {
		return m, err
	}
	parts := multipart.NewReader(parsed.Body, options["boundary"])
	for {
		part, err := parts.NextRawPart()
		if err == io.EOF {
			return m, nil
		}
		if err != nil {
			return m, err
		}
		text, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			return m, err
		}
		if strings.HasPrefix(part.Header.Get("Content-Type"), "text/html") {
			m.HTML = string(text)
		} else {
			m.Plain = strings.ReplaceAll(string(text), "\r\n", "\n")
		}
	}
}

// selfSigned returns a certificate for loopback addresses, and a file that contains it.
func selfSigned(t testing.TB) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
