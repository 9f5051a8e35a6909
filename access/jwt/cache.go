package jwt

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
)

// tokenDigest is the SHA-256 of a token. It is the cache key, so that tokens themselves
// are not kept in memory.
type tokenDigest [sha256.Size]byte

func digestOf(token string) tokenDigest {
	text := make([]byte, 0, 1536) // on the stack, as few tokens are longer
	return sha256.Sum256(append(text, token...))
}

// tokenCache caches valid tokens. It is a lock-free set-associative table: a token maps
// to one row, whose columns are searched. The table is allocated with the first token.
type tokenCache struct {
	rows  int
	table atomic.Pointer[[]atomic.Pointer[verified]]
}

const cacheColumns = 8

// newTokenCache returns a cache for about size tokens. If size is not positive, it returns
// nil, which caches nothing.
func newTokenCache(size int) *tokenCache {
	if size <= 0 {
		return nil
	}
	return &tokenCache{rows: (size + cacheColumns - 1) / cacheColumns}
}

// row returns the row of a token, or nil if the table is not allocated.
func (c *tokenCache) row(token *tokenDigest) []atomic.Pointer[verified] {
	table := c.table.Load()
	if table == nil {
		return nil
	}
	at := binary.LittleEndian.Uint64(token[:]) % uint64(c.rows) * cacheColumns
	return (*table)[at : at+cacheColumns]
}

// get returns a cached token that the given keys verified. The caller checks its validity
// period.
func (c *tokenCache) get(token *tokenDigest, keys *keySet) *verified {
	if c == nil {
		return nil
	}
	row := c.row(token)
	for i := range row {
		if v := row[i].Load(); v != nil && v.token == *token && v.keys == keys {
			return v
		}
	}
	return nil
}

// put adds a token. In a full row, it replaces a token that has expired or was verified
// by other keys. If there is none, it replaces any token.
func (c *tokenCache) put(added *verified, now int64) {
	if c == nil {
		return
	}
	row := c.row(&added.token)
	if row == nil {
		table := make([]atomic.Pointer[verified], c.rows*cacheColumns)
		c.table.CompareAndSwap(nil, &table) // fails if another request allocated the table first
		row = c.row(&added.token)
	}
	place := &row[added.token[len(added.token)-1]%cacheColumns]
	for i := range row {
		v := row[i].Load()
		if v != nil && v.token == added.token {
			place = &row[i]
			break
		}
		if v == nil || v.keys != added.keys || v.expires <= now {
			place = &row[i]
		}
	}
	place.Store(added)
}
