package bandwidth

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
)

// server is the PostgreSQL that all tests of this package share, each with a schema of
// its own. It starts when it is first needed.
var server postgresServer

type postgresServer struct {
	once  sync.Once
	url   string
	err   error
	input io.Closer // ends it
	cmd   *exec.Cmd

	mu      sync.Mutex
	schemas int // guarded by mu
}

// postgresStore returns the address of an empty schema.
func postgresStore(t testing.TB) string {
	t.Helper()
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if _, err := exec.LookPath("initdb"); err != nil && len(installed) == 0 {
		t.Skip("there is no PostgreSQL: run `make test`, which installs it, or install it yourself")
	}
	server.once.Do(server.start)
	if server.err != nil {
		t.Fatalf("starting PostgreSQL: %v", server.err)
	}
	db, err := sql.Open("pgx", server.url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	server.mu.Lock()
	server.schemas++
	name := fmt.Sprintf("test%d", server.schemas)
	server.mu.Unlock()
	if _, err := db.Exec("CREATE SCHEMA " + name); err != nil {
		t.Fatal(err)
	}
	return server.url + "&search_path=" + name
}

func (s *postgresServer) start() {
	s.cmd = exec.Command("../hack/postgres")
	s.cmd.Stderr = os.Stderr
	input, err := s.cmd.StdinPipe()
	if err != nil {
		s.err = err
		return
	}
	s.input = input
	output, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.err = err
		return
	}
	s.url, err = bufio.NewReader(output).ReadString('\n')
	s.url = strings.TrimSpace(s.url)
	if err != nil {
		s.err = errors.Join(err, s.cmd.Wait())
		s.cmd = nil
	}
}

func (s *postgresServer) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.input.Close()
		_ = s.cmd.Wait()
	}
}

// onBothEngines runs a test on an empty SQLite and on an empty PostgreSQL.
func onBothEngines(t *testing.T, test func(t *testing.T, store string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteStore(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, postgresStore(t)) })
}

func sqliteStore(t testing.TB) string {
	return "sqlite://" + filepath.Join(t.TempDir(), "bandwidth.db")
}
