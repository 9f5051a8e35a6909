package jwt

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"testing"
)

func jwtCached(i int, keys *keySet, expires int64) *verified {
	return &verified{token: sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i))), keys: keys, expires: expires}
}

func TestTokenCacheIsBounded(t *testing.T) {
	const size = 1000
	cache, keys := newTokenCache(size), new(keySet)
	for i := range 100 * size {
		v := jwtCached(i, keys, 1)
		cache.put(v, 0)
		if cache.get(&v.token, keys) != v {
			t.Fatalf("token %d was forgotten at once", i)
		}
	}
	kept := 0
	for i := range 100 * size {
		v := jwtCached(i, keys, 1)
		if got := cache.get(&v.token, keys); got != nil {
			kept++
			if got.token != v.token {
				t.Fatal("one token was taken for another")
			}
		}
	}
	if kept < size*9/10 || kept > size {
		t.Errorf("%d tokens are kept of %d", kept, size)
	}
}

func TestTokenCacheKeepsWhatItHasRoomFor(t *testing.T) {
	const size = 10_000
	cache, keys := newTokenCache(size), new(keySet)
	for i := range size / 2 {
		cache.put(jwtCached(i, keys, 1), 0)
	}
	kept := 0
	for i := range size / 2 {
		if v := jwtCached(i, keys, 1); cache.get(&v.token, keys) != nil {
			kept++
		}
	}
	if kept < size/2*95/100 {
		t.Errorf("%d tokens are kept of %d, with room for %d", kept, size/2, size)
	}
}

func TestTokenCacheForgetsOtherKeys(t *testing.T) {
	cache, before, after := newTokenCache(cacheColumns), &keySet{make([]verifyKey, 1)}, &keySet{make([]verifyKey, 1)}
	for i := range cacheColumns {
		cache.put(jwtCached(i, before, 10), 0)
	}
	v := jwtCached(0, before, 10)
	if cache.get(&v.token, after) != nil {
		t.Error("a token of other keys is found")
	}
	// New tokens evict them one by one and stay in the cache.
	for i := range cacheColumns {
		cache.put(jwtCached(100+i, after, 10), 0)
	}
	for i := range cacheColumns {
		if v := jwtCached(100+i, after, 10); cache.get(&v.token, after) == nil {
			t.Errorf("token %d of the new keys was forgotten", i)
		}
	}
	for i := range cacheColumns { // expired tokens are evicted too
		cache.put(jwtCached(200+i, after, 20), 10)
	}
	for i := range cacheColumns {
		if v := jwtCached(200+i, after, 20); cache.get(&v.token, after) == nil {
			t.Errorf("token %d after the others expired was forgotten", i)
		}
	}
}

func TestNoTokenCache(t *testing.T) {
	cache, v := newTokenCache(-1), jwtCached(1, nil, 1)
	cache.put(v, 0)
	if cache.get(&v.token, nil) != nil {
		t.Error("a disabled cache remembers")
	}
}

func TestTokenCacheByMany(t *testing.T) {
	cache, keys := newTokenCache(64), new(keySet)
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for i := range 2000 {
				v := jwtCached(i%200, keys, 1)
				if got := cache.get(&v.token, keys); got != nil && got.token != v.token {
					t.Error("one token was taken for another")
				}
				cache.put(v, 0)
			}
		})
	}
	users.Wait()
}
