package httpcache

import (
	"slices"
	"strings"
)

// Invalidate removes all entries of a normalized URL and returns their number. Responses
// to requests in flight are not stored.
func (s *Store) Invalidate(url string) int {
	s.mu.RLock()
	known := s.byURL[url] != nil || s.fetches[url] != nil
	s.mu.RUnlock()
	if !known {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := s.fetches[url]; f != nil; f = f.older {
		f.invalidated = true
	}
	before := s.count
	for f := s.byURL[url]; f != nil; f = s.byURL[url] {
		for _, e := range f.entries() {
			s.remove(e)
		}
	}
	return int(before - s.count)
}

// Idle reports whether the store has no entries and no requests are in flight.
func (s *Store) Idle() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.count == 0 && len(s.fetches) == 0
}

func (f *variants) entries() (all []*Entry) {
	if f.plain != nil {
		all = append(all, f.plain)
	}
	for _, e := range f.others {
		all = append(all, e)
	}
	return all
}

// Purge selects entries to remove. The zero value selects all entries.
type Purge struct {
	URL    string // normalized URL, or a path with its query, which matches all hosts
	Prefix string // prefix of such a URL or path
	Tag    string
}

// Purge removes the selected entries and returns their number. Responses to requests in
// flight that may be selected are not stored.
func (s *Store) Purge(p Purge) int {
	if p.URL != "" && p.URL[0] != '/' && p.Prefix == "" && p.Tag == "" {
		return s.Invalidate(p.URL)
	}
	s.invalidateFetches(p)
	var found []*Entry
	s.mu.RLock() // a read lock: hits continue
	for e := s.newest; e != nil; e = e.older {
		if p.selects(e.owner.url) && (p.Tag == "" || slices.Contains(e.tags, p.Tag)) {
			found = append(found, e)
		}
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.count
	for _, e := range found {
		s.remove(e)
	}
	return int(before - s.count)
}

// invalidateFetches marks requests in flight whose responses may be selected.
func (s *Store) invalidateFetches(p Purge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for url, first := range s.fetches {
		if p.selects(url) {
			for f := first; f != nil; f = f.older {
				f.invalidated = true
			}
		}
	}
}

func (p *Purge) selects(url string) bool {
	if p.URL != "" && relative(p.URL, url) != p.URL {
		return false
	}
	return strings.HasPrefix(relative(p.Prefix, url), p.Prefix)
}

// relative returns the path of url if with is a path. Otherwise it returns url.
func relative(with, url string) string {
	if strings.HasPrefix(with, "/") {
		return pathOf(url)
	}
	return url
}
