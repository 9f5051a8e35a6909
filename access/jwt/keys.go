package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
)

// signingAlgorithms lists the supported algorithms by their names in token headers (RFC
// 7518, section 3.1, RFC 8037 and RFC 9864).
var signingAlgorithms = []jose.SignatureAlgorithm{
	jose.HS256, jose.HS384, jose.HS512,
	jose.RS256, jose.RS384, jose.RS512,
	jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512,
	jose.EdDSA, ed25519Algorithm,
}

// ed25519Algorithm is the name of EdDSA with Ed25519 (RFC 9864, section 2.2). EdDSA keys
// of other curves are not supported, so both names are equivalent.
const ed25519Algorithm jose.SignatureAlgorithm = "Ed25519"

func isSymmetric(algorithm jose.SignatureAlgorithm) bool {
	return strings.HasPrefix(string(algorithm), "HS")
}

// aliases returns all names of an algorithm.
func aliases(algorithm jose.SignatureAlgorithm) []jose.SignatureAlgorithm {
	if algorithm == jose.EdDSA || algorithm == ed25519Algorithm {
		return []jose.SignatureAlgorithm{jose.EdDSA, ed25519Algorithm}
	}
	return []jose.SignatureAlgorithm{algorithm}
}

// ed25519Key verifies signatures under both names of the algorithm. go-jose supports only
// EdDSA.
type ed25519Key ed25519.PublicKey

// VerifyPayload implements jose.OpaqueVerifier.
func (k ed25519Key) VerifyPayload(payload, signature []byte, algorithm jose.SignatureAlgorithm) error {
	if !slices.Contains(aliases(jose.EdDSA), algorithm) || !ed25519.Verify(ed25519.PublicKey(k), payload, signature) {
		return jose.ErrCryptoFailure
	}
	return nil
}

// keySet holds the keys that verify signatures. It is immutable.
type keySet struct{ keys []verifyKey }

// verifyKey is a public key or secret that verifies signatures.
type verifyKey struct {
	id         string                    // the `kid`; if empty, the key is tried for every token
	material   any                       // in a type that go-jose accepts
	algorithms []jose.SignatureAlgorithm // algorithms that the key can verify
}

const (
	minRSABits = 2048 // RFC 7518, section 3.3
	maxJWKs    = 100  // maximum number of keys in a set
)

// newVerifyKey returns a key for the algorithms of its type. If only is not empty, the key
// is restricted to this algorithm. A public key is never used for HMAC.
func newVerifyKey(id string, material any, only string) (verifyKey, error) {
	key := verifyKey{id: id, material: material}
	switch public := material.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits < minRSABits {
			return key, fmt.Errorf("RSA key of %d bits is too short: must have at least %d bits", bits, minRSABits)
		}
		key.algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			key.algorithms = []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			key.algorithms = []jose.SignatureAlgorithm{jose.ES384}
		case elliptic.P521():
			key.algorithms = []jose.SignatureAlgorithm{jose.ES512}
		default:
			return key, errors.New("unsupported curve of an EC key: use P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		key.material, key.algorithms = ed25519Key(public), aliases(jose.EdDSA)
	case []byte:
		return key, errors.New("symmetric keys are not supported here: use the option secret")
	default:
		return key, fmt.Errorf("unsupported key type %T: use RSA, EC or Ed25519", material)
	}
	if only != "" {
		if !slices.Contains(key.algorithms, jose.SignatureAlgorithm(only)) {
			return key, fmt.Errorf("the key does not match its algorithm %q", only)
		}
		key.algorithms = aliases(jose.SignatureAlgorithm(only))
	}
	return key, nil
}

// secretKeys returns a set with one secret for the HMAC algorithms.
func secretKeys(secret string) *keySet {
	return &keySet{[]verifyKey{{
		material:   []byte(secret),
		algorithms: []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512},
	}}}
}

// suitsAny reports whether a key in the set supports one of the algorithms.
func (s *keySet) suitsAny(algorithms []jose.SignatureAlgorithm) bool {
	return slices.ContainsFunc(s.keys, func(key verifyKey) bool {
		return slices.ContainsFunc(algorithms, func(a jose.SignatureAlgorithm) bool {
			return slices.Contains(key.algorithms, a)
		})
	})
}

// verify returns the payload of a token if a key verifies its signature. A failure is not
// final: a newer set can contain the key, even under the same ID.
func (s *keySet) verify(token *jose.JSONWebSignature) (payload []byte, err error) {
	header := token.Signatures[0].Protected
	tried := false
	for i := range s.keys {
		key := &s.keys[i]
		if header.KeyID != "" && key.id != "" && key.id != header.KeyID {
			continue
		}
		if !slices.Contains(key.algorithms, jose.SignatureAlgorithm(header.Algorithm)) {
			continue
		}
		tried = true
		if payload, err := token.Verify(key.material); err == nil {
			return payload, nil
		}
	}
	if !tried {
		return nil, fmt.Errorf("no key %.64q for algorithm %q", header.KeyID, header.Algorithm)
	}
	return nil, errors.New("invalid signature")
}

// parsePEM parses PEM-encoded public keys and certificates. It ignores no keys, so the
// second result is nil.
func parsePEM(text []byte) (*keySet, []error, error) {
	set := new(keySet)
	rest := text
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		material, err := publicKeyOf(block)
		if err != nil {
			return nil, nil, err
		}
		key, err := newVerifyKey("", material, "")
		if err != nil {
			return nil, nil, err
		}
		set.keys = append(set.keys, key)
	}
	begun := strings.Count(string(text), "-----BEGIN ")
	switch {
	case begun == 0:
		return nil, nil, errors.New("invalid PEM: must contain a block such as -----BEGIN PUBLIC KEY-----")
	case begun != len(set.keys):
		return nil, nil, errors.New("invalid PEM block: copy the key again, including line breaks")
	case begun > maxJWKs:
		return nil, nil, fmt.Errorf("too many keys: must be at most %d: remove unused keys", maxJWKs)
	}
	return set, nil, nil
}

// publicKeyOf returns the public key in a PEM block.
func publicKeyOf(block *pem.Block) (material any, err error) {
	switch block.Type {
	case "PUBLIC KEY":
		material, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			material = certificate.PublicKey
		}
	default:
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, errors.New("private keys are not accepted: extract the public key with `openssl pkey -pubout`")
		}
		return nil, fmt.Errorf("unknown PEM block type %q: use a public key or a certificate", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("invalid %s: %w: export it again in PEM format", strings.ToLower(block.Type), err)
	}
	return material, nil
}

// jwk holds the members of a JWK (RFC 7517) that are used. Certificates are ignored,
// because some issuers publish malformed ones.
type jwk struct {
	ID        string   `json:"kid,omitempty"`
	Type      string   `json:"kty"`
	Use       string   `json:"use,omitempty"`
	KeyOps    []string `json:"key_ops,omitempty"`
	Algorithm string   `json:"alg,omitempty"`
	Curve     string   `json:"crv,omitempty"`
	X         string   `json:"x,omitempty"`
	Y         string   `json:"y,omitempty"`
	N         string   `json:"n,omitempty"`
	E         string   `json:"e,omitempty"`
	D         string   `json:"d,omitempty"` // only in private keys
	K         string   `json:"k,omitempty"` // only in symmetric keys
}

// parseJWKS parses a JWK Set. It ignores keys that are unusable or not for signatures
// (RFC 7517, section 5). The second result holds the reasons.
func parseJWKS(text []byte) (*keySet, []error, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return nil, nil, fmt.Errorf("invalid JWK Set: %w: must be an object such as {\"keys\": [...]}", err)
	}
	set := new(keySet)
	var left []error
	for i, raw := range document.Keys {
		if len(set.keys) == maxJWKs {
			left = append(left, fmt.Errorf("keys from %d on are ignored: at most %d keys are supported", i+1, maxJWKs))
			break
		}
		key, err := parseJWK(raw)
		if err != nil {
			left = append(left, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		set.keys = append(set.keys, key)
	}
	if len(set.keys) == 0 {
		reason := "the list of keys is empty"
		if len(left) > 0 {
			reason = strings.ReplaceAll(errors.Join(left...).Error(), "\n", "; ")
		}
		return nil, left, fmt.Errorf("no key to verify signatures with: %s", reason)
	}
	return set, left, nil
}

func parseJWK(raw []byte) (none verifyKey, err error) {
	var key jwk
	if err := json.Unmarshal(raw, &key); err != nil {
		return none, err
	}
	switch {
	case key.Use != "" && key.Use != "sig":
		return none, fmt.Errorf("unsupported use %q", key.Use)
	case len(key.KeyOps) > 0 && !slices.Contains(key.KeyOps, "verify"):
		return none, fmt.Errorf("unsupported key_ops %q", key.KeyOps)
	case key.Type == "oct" || key.K != "":
		return none, errors.New("symmetric keys are not supported here: use the option secret")
	case key.D != "":
		return none, errors.New("private keys are not accepted: generate a new key pair and publish only its public key")
	}
	if raw, err = json.Marshal(key); err != nil {
		return none, err
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(raw); err != nil {
		return none, err
	}
	return newVerifyKey(key.ID, parsed.Key, key.Algorithm)
}
