package httpcache

import (
	"slices"
	"strings"
)

// Invalidate removes all entries of a URL, which must be in the form in which the
// store knows it, and sees to it that no answer is stored that was requested before.
// It returns how many entries there were.
func (s *Store) Invalidate(url string) int {
	s.mu.RLock()
	known := s.byURL[url] != nil || s.flights[url] != nil
	s.mu.RUnlock()
	if !known {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := s.flights[url]; f != nil; f = f.older {
		f.spoiled = true
	}
	before := s.count
	for f := s.byURL[url]; f != nil; f = s.byURL[url] {
		for _, e := range f.entries() {
			s.remove(e)
		}
	}
	return int(before - s.count)
}

// Idle reports whether nothing is stored and nothing is under way.
func (s *Store) Idle() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.count == 0 && len(s.flights) == 0
}

func (f *family) entries() (all []*Entry) {
	if f.plain != nil {
		all = append(all, f.plain)
	}
	for _, e := range f.variants {
		all = append(all, e)
	}
	return all
}

// Purge is which entries to remove. One that is empty removes all of them.
type Purge struct {
	URL    string // in the form in which a store knows it; or a path with its query, of any host
	Prefix string // of such a URL, or of such a path
	Tag    string
}

// Purge removes entries, and sees to it that no answer that they may be is stored
// that was requested before. It returns how many entries there were.
func (s *Store) Purge(p Purge) int {
	if p.URL != "" && p.URL[0] != '/' && p.Prefix == "" && p.Tag == "" {
		return s.Invalidate(p.URL)
	}
	s.spoil(p)
	var found []*Entry
	s.mu.RLock() // hits go on meanwhile
	for e := s.newest; e != nil; e = e.older {
		if p.takesURL(e.home.url) && (p.Tag == "" || slices.Contains(e.tags, p.Tag)) {
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

// spoil marks the requests whose answers may be such that are to be removed.
func (s *Store) spoil(p Purge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for url, first := range s.flights {
		if p.takesURL(url) {
			for f := first; f != nil; f = f.older {
				f.spoiled = true
			}
		}
	}
}

func (p *Purge) takesURL(url string) bool {
	if p.URL != "" && relative(p.URL, url) != p.URL {
		return false
	}
	return strings.HasPrefix(relative(p.Prefix, url), p.Prefix)
}

// relative is a URL, or its path if that is what it is compared with.
func relative(with, url string) string {
	if strings.HasPrefix(with, "/") {
		return pathOf(url)
	}
	return url
}
