package store

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Address is where a database is.
type Address struct {
	*dialect
	Path string          // of the file of SQLite, absolute
	pg   *pgx.ConnConfig // of PostgreSQL
	name string          // what and where, without credentials
}

var errAddress = errors.New("the store is neither of the two that there are: " +
	"use sqlite:///var/lib/rgate/bandwidth.db or postgres://user:password@host/database")

// ParseAddress reads a URL whose placeholders are filled in. Its errors do not show
// the URL, which may have a password in it.
func ParseAddress(store string) (Address, error) {
	scheme, rest, _ := strings.Cut(store, ":")
	switch scheme {
	case "sqlite":
		return parseSQLite(rest)
	case "postgres", "postgresql":
		return parsePostgres(store)
	}
	return Address{}, errAddress
}

func parseSQLite(rest string) (Address, error) {
	rest = strings.TrimPrefix(rest, "//")
	path, err := url.PathUnescape(rest)
	if err != nil || path == "" || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "?#\x00") {
		return Address{}, errors.New("the store names no file: use one such as sqlite:///var/lib/rgate/bandwidth.db, without options")
	}
	if path, err = filepath.Abs(path); err != nil {
		return Address{}, fmt.Errorf("finding the file of the store: %w: give an absolute path", err)
	}
	return Address{dialect: sqlite, Path: path, name: "sqlite " + path}, nil
}

func parsePostgres(store string) (Address, error) {
	config, err := pgx.ParseConfig(store)
	if err != nil {
		// Its error may quote parts of the URL.
		return Address{}, errors.New("the store is no URL that PostgreSQL takes: " +
			"use one such as postgres://user:password@host:5432/database?sslmode=require")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "rgate"
	}
	return Address{dialect: postgres, pg: config, name: fmt.Sprintf("postgres %s:%d/%s", config.Host, config.Port, config.Database)}, nil
}
