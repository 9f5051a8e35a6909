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
	keyBytes       = 32 // of randomness in a new key
	maxKeyLength   = 4096
	shortestToKeep = 20 // shorter keys can be found by trying
)

// hashKeyCommand makes the command that prints the hashes of API keys.
func hashKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hash-key [--generate]",
		Short: "Prints the SHA-256 of an API key, as the configuration has it",
		Long: `Reads an API key from the standard input and prints its SHA-256, which is what a
configuration has in its place. An argument would stay in the shell's history.

	$ rgate hash-key < key.txt
	$ rgate hash-key --generate`,
		Args: noArgs,
	}
	generate := cmd.Flags().Bool("generate", false, "Make a new key, and print it with its hash")
	cmd.RunE = plainly(func() error {
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

// askForKey reads a key from a file; if that is a terminal, without showing it.
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

// readKey reads a key, which is all there is but for the end of the line.
func readKey(in io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxKeyLength+2))
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	key := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case key == "":
		return "", errors.New("there is no key: give it to the standard input, or use --generate for a new one")
	case len(key) > maxKeyLength:
		return "", fmt.Errorf("the key is longer than %d bytes: use --generate for one of a good length", maxKeyLength)
	case strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }):
		return "", errors.New("the key has a space, a line break or another character that a header field does not carry: give one key alone, or use --generate for a new one")
	}
	return key, nil
}

func hashOf(key string) string {
	digest := sha256.Sum256([]byte(key))
	return hex.EncodeToString(digest[:])
}

// printHash prints the hash of a key, and says if it is a poor one.
func printHash(out, notes io.Writer, key string) error {
	if len(key) < shortestToKeep {
		fmt.Fprintf(notes, "Note: a key of %d characters can be found by trying. A better one: rgate hash-key --generate\n", len(key))
	}
	_, err := fmt.Fprintln(out, hashOf(key))
	return err
}

// printNewKey prints a new key, its hash, and the line for a configuration.
func printNewKey(out io.Writer) error {
	random := make([]byte, keyBytes)
	_, _ = rand.Read(random) // it never fails
	key := base64.RawURLEncoding.EncodeToString(random)
	_, err := fmt.Fprintf(out, `key:    %s
sha256: %s

The key is for the consumer; it is not kept anywhere. This is for the configuration:

- {name: CONSUMER, sha256: %[2]s}
`, key, hashOf(key))
	return err
}
