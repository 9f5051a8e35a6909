package store

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for store, want := range map[string]string{
		"sqlite:///var/lib/rgate/bandwidth.db":             "sqlite /var/lib/rgate/bandwidth.db",
		"sqlite:/var/lib/rgate/bandwidth.db":               "sqlite /var/lib/rgate/bandwidth.db",
		"sqlite:///var/lib/my%20rgate/b.db":                "sqlite /var/lib/my rgate/b.db",
		"postgres://rgate:secret@db.internal/usage":        "postgres db.internal:5432/usage",
		"postgresql://rgate:secret@[::1]:6432/usage":       "postgres ::1:6432/usage",
		"postgres://rgate@/usage?host=/run/postgresql":     "postgres /run/postgresql:5432/usage",
		"postgres://a:secret@one,two/usage?sslmode=prefer": "postgres one:5432/usage",

		"":                                    "must be a URL of SQLite or PostgreSQL",
		"mysql://root:secret@localhost/usage": "must be a URL of SQLite or PostgreSQL",
		"/var/lib/rgate/bandwidth.db":         "must be a URL of SQLite or PostgreSQL",
		"sqlite://":                           "must name a file",
		"sqlite:///var/lib/":                  "must name a file",
		"sqlite:///a.db?mode=memory":          "must name a file",
		"sqlite:///a%zz":                      "must name a file",
		"postgres://a:secret@host:port/usage": "must be a PostgreSQL URL",
	} {
		at, err := ParseAddress(store)
		got := at.name
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || (err == nil) != (got == want) || strings.Contains(got, "secret") {
			t.Errorf("%s: %s", store, got)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("sqlite:///a%20b.db")
	f.Add("postgres://a:b@c:1/d?sslmode=require")
	f.Fuzz(func(t *testing.T, store string) {
		at, err := ParseAddress(store)
		if err == nil && (at.name == "" || at.dialect == nil || at.dialect == sqlite && at.Path[0] != '/') {
			t.Errorf("%q is at %+v", store, at)
		}
	})
}

func TestRewrite(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT 1":                     "SELECT 1",
		"a = ? AND b IN (?, ?)":        "a = $1 AND b IN ($2, $3)",
		"a = '?' AND \"?\" = ? OR '''": "a = '?' AND \"?\" = $1 OR '''",
	} {
		if got := postgres.rewrite(query); got != want {
			t.Errorf("%s became %s", query, got)
		}
		if got := sqlite.rewrite(query); got != query {
			t.Errorf("%s became %s for SQLite", query, got)
		}
	}
}

func TestStatements(t *testing.T) {
	got := statements("-- one; two\nCREATE TABLE a (\n\t-- three\n\tb TEXT DEFAULT 'x;y'\n);\n\nDROP TABLE a")
	if len(got) != 2 || got[0] != "CREATE TABLE a (\n\tb TEXT DEFAULT 'x;y'\n);\n" || got[1] != "DROP TABLE a" {
		t.Errorf("statements are %q", got)
	}
}
