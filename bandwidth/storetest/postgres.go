package storetest

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

// server is the test process's PostgreSQL server, started on first use. Each test has a
// separate schema.
var server postgresServer

type postgresServer struct {
	once  sync.Once
	url   string
	err   error
	input io.Closer // stops the server
	cmd   *exec.Cmd

	mu      sync.Mutex
	schemas int // Guarded by mu.
}

// Postgres returns the URL of an empty schema. It skips the test if PostgreSQL is not
// installed.
func Postgres(t testing.TB) string {
	t.Helper()
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if _, err := exec.LookPath("initdb"); err != nil && len(installed) == 0 {
		t.Skip("PostgreSQL is not installed: run `make test`, which installs it, or install it yourself")
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
	root, err := moduleRoot()
	if err != nil {
		s.err = err
		return
	}
	s.cmd = exec.Command(filepath.Join(root, "hack", "postgres"))
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

// moduleRoot returns the parent directory that contains go.mod.
func moduleRoot() (string, error) {
	folder, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(folder, "go.mod")); err == nil {
			return folder, nil
		}
		if folder == filepath.Dir(folder) {
			return "", errors.New("no go.mod above the working directory")
		}
		folder = filepath.Dir(folder)
	}
	return "", err
}

// Stop stops the server if it is running.
func Stop() {
	if server.cmd != nil && server.cmd.Process != nil {
		_ = server.input.Close()
		_ = server.cmd.Wait()
	}
}
