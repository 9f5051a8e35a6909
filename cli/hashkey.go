package cli

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	keyBytes       = 32 // the random bytes of a new key
	maxKeyLength   = 4096
	shortestToKeep = 20 // the length below which a warning is printed
)

// hashKeyCommand returns the command that prints the hashes of API keys.
func hashKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hash-key [--generate]",
		Short: "Prints the SHA-256 of an API key for the configuration",
		Long: `Reads an API key from the standard input and prints its SHA-256, for the
		configuration. A key in an argument would stay in the shell's history.

	$ rgate hash-key < key.txt
	$ rgate hash-key --generate`,
		Args: noArgs,
	}
	generate := cmd.Flags().Bool("generate", false, "Generate a key, and print it with its hash")
	cmd.RunE = withPlainErrors(func() error {
		if *generate {
			return printNewKey(os.Stdout)
		}
		key, err := askForKey(os.Stdin)
		if err != nil {
			return err
		}
		return printHash(os.Stdout, os.Stderr, key)
	})
	return cmd
}

// askForKey reads a key from a file. It disables echo if the file is a terminal.
func askForKey(in *os.File) (string, error) {
	if !term.IsTerminal(int(in.Fd())) {
		return readKey(in)
	}
	fmt.Fprint(os.Stderr, "Key: ")
	text, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	return readKey(strings.NewReader(string(text)))
}

// readKey reads a key and removes the trailing newline.
func readKey(in io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxKeyLength+2))
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	key := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case key == "":
		return "", errors.New("key is required: write it to the standard input, or use --generate for a new one")
	case len(key) > maxKeyLength:
		return "", fmt.Errorf("invalid key: must be at most %d bytes: use --generate for a new one", maxKeyLength)
	case strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "", errors.New("invalid key: must not contain spaces, line breaks, control characters or non-ASCII characters: use --generate for a new one")
	}
	return key, nil
}

func hashOf(key string) string {
	digest := sha256.Sum256([]byte(key))
	return hex.EncodeToString(digest[:])
}

// printHash prints the hash of a key, and a warning if the key is short.
func printHash(out, notes io.Writer, key string) error {
	if len(key) < shortestToKeep {
		fmt.Fprintf(notes, "Warning: a key of %d characters can be guessed. Use rgate hash-key --generate for a new one.\n", len(key))
	}
	_, err := fmt.Fprintln(out, hashOf(key))
	return err
}

// printNewKey prints a new key, its hash, and a line for the configuration.
func printNewKey(out io.Writer) error {
	random := make([]byte, keyBytes)
	_, _ = rand.Read(random) // never returns an error
	key := base64.RawURLEncoding.EncodeToString(random)
	_, err := fmt.Fprintf(out, `key:    %s
sha256: %s

The key is for the consumer, and is not stored. The configuration gets:

- {name: CONSUMER, sha256: %[2]s}
`, key, hashOf(key))
	return err
}
