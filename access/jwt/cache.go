package jwt

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
)

// tokenDigest identifies a token in memory, where tokens are not stored.
type tokenDigest [sha256.Size]byte

func digestOf(token string) tokenDigest {
	text := make([]byte, 0, 1536) // on the stack; few tokens are longer
	return sha256.Sum256(append(text, token...))
}

// tokenCache caches valid tokens. It is a set-associative table without locks: a token
// belongs to one row, whose columns are searched. The table is allocated with the first
// token.
type tokenCache struct {
	rows  int
	table atomic.Pointer[[]atomic.Pointer[verified]]
}

const cacheColumns = 8

// newTokenCache returns a cache for about size tokens; nil, an empty cache, for 0.
func newTokenCache(size int) *tokenCache {
	if size <= 0 {
		return nil
	}
	return &tokenCache{rows: (size + cacheColumns - 1) / cacheColumns}
}

// row returns the row of a token; nil if there is no table yet.
func (c *tokenCache) row(token *tokenDigest) []atomic.Pointer[verified] {
	table := c.table.Load()
	if table == nil {
		return nil
	}
	at := binary.LittleEndian.Uint64(token[:]) % uint64(c.rows) * cacheColumns
	return (*table)[at : at+cacheColumns]
}

// get returns a cached token that these keys verified. The caller checks its period.
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

// put adds a token. In a full row, it replaces one that other keys verified or that has
// expired, or else any.
func (c *tokenCache) put(added *verified, now int64) {
	if c == nil {
		return
	}
	row := c.row(&added.token)
	if row == nil {
		table := make([]atomic.Pointer[verified], c.rows*cacheColumns)
		c.table.CompareAndSwap(nil, &table) // else another request was faster
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
