package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"strconv"
	"strings"
)

// The schema migrations, applied once each in the order of their numbers. They use SQL
// that both engines support, and `{{…}}` for dialect differences.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrate applies the pending migrations. Concurrent calls of other gateways wait.
func (db *DB) migrate(ctx context.Context, pool *sql.DB) error {
	return db.transact(ctx, pool, nil, func(tx *Tx) error {
		if db.dialect == postgres {
			const lock int64 = 0x7267617465 // rgate
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(?)", lock); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS schema_migrations (number BIGINT PRIMARY KEY, name TEXT NOT NULL, at BIGINT NOT NULL)"); err != nil {
			return err
		}
		taken, err := takenSteps(ctx, tx)
		if err != nil {
			return err
		}
		files, err := migrations.ReadDir("migrations") // sorted
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := db.step(ctx, tx, file.Name(), taken); err != nil {
				return fmt.Errorf("migrating the database to %s: %w", file.Name(), err)
			}
		}
		return nil
	})
}

func takenSteps(ctx context.Context, tx *Tx) (map[int]bool, error) {
	rows, err := tx.Query(ctx, "SELECT number FROM schema_migrations")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	taken := make(map[int]bool)
	for rows.Next() {
		var number int
		if err := rows.Scan(&number); err != nil {
			return nil, err
		}
		taken[number] = true
	}
	return taken, rows.Err()
}

// step applies one migration unless it has been applied.
func (db *DB) step(ctx context.Context, tx *Tx, name string, taken map[int]bool) error {
	digits, _, _ := strings.Cut(name, "_")
	number, err := strconv.Atoi(digits)
	if err != nil || taken[number] {
		return err
	}
	taken[number] = true
	source, err := migrations.ReadFile("migrations/" + name)
	if err != nil {
		return err
	}
	for _, statement := range statements(db.words.Replace(string(source))) {
		if _, err := tx.tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, "INSERT INTO schema_migrations (number, name, at) VALUES (?, ?, ?)", number, name, db.now().Unix())
	return err
}

// statements splits a migration at semicolons that end a line. It skips comment lines.
func statements(source string) (all []string) {
	var b strings.Builder
	for line := range strings.Lines(source) {
		if strings.HasPrefix(strings.TrimSpace(line), "--") {
			continue
		}
		b.WriteString(line)
		if strings.HasSuffix(strings.TrimSpace(line), ";") {
			all = append(all, b.String())
			b.Reset()
		}
	}
	if rest := strings.TrimSpace(b.String()); rest != "" {
		all = append(all, rest)
	}
	return all
}
