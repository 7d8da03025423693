package conf

import (
	"strconv"
	"strings"
)

// lineIndex tells on which line a key is written. The TOML library checks and decodes the file but
// keeps the positions of the keys to itself, so they are found by a scan of their own. Paths look
// like `cluster[0].node[1].port`.
type lineIndex map[string]int

// indexLines scans a text that the TOML library has accepted. Of any other text it returns what it
// had found before it lost the thread; it never panics and never loops.
func indexLines(text string) lineIndex {
	s := &lineScanner{text: text, line: 1, index: lineIndex{}, tables: map[string]int{}}
	table := ""
	for s.skipBlank(); s.pos < len(s.text); s.skipBlank() {
		before := s.pos
		if s.peek() == '[' {
			table = s.header()
		} else {
			s.keyValue(table)
		}
		if s.pos == before {
			break
		}
	}
	return s.index
}

type lineScanner struct {
	text string
	pos  int
	line int
	// depth bounds the recursion into arrays and inline tables of a hostile file.
	depth  int
	index  lineIndex
	tables map[string]int // how many elements each array of tables has so far
}

func (s *lineScanner) peek() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *lineScanner) next() byte {
	c := s.peek()
	if c == '\n' {
		s.line++
	}
	if s.pos < len(s.text) {
		s.pos++
	}
	return c
}

// skipBlank passes spaces, line ends, commas and comments.
func (s *lineScanner) skipBlank() {
	for s.pos < len(s.text) {
		switch s.peek() {
		case ' ', '\t', '\r', '\n', ',':
			s.next()
		case '#':
			for s.pos < len(s.text) && s.peek() != '\n' {
				s.next()
			}
		default:
			return
		}
	}
}

func (s *lineScanner) skipSpace() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.next()
	}
}

// header reads [a.b] or [[a.b]] and returns the path of the table that it opens.
func (s *lineScanner) header() string {
	line := s.line
	s.next()
	array := s.peek() == '['
	if array {
		s.next()
	}
	keys := s.dottedKey()
	for s.pos < len(s.text) && s.peek() != '\n' && s.peek() != '#' {
		s.next()
	}
	path := ""
	for i, key := range keys {
		path = join(path, key)
		last := i == len(keys)-1
		if last && array {
			s.tables[path]++
		}
		if n := s.tables[path]; n > 0 {
			path = element(path, n-1)
		}
	}
	s.note(path, line)
	return path
}

// keyValue reads key = value inside the table.
func (s *lineScanner) keyValue(table string) {
	line := s.line
	path := table
	for _, key := range s.dottedKey() {
		path = join(path, key)
		s.note(path, line)
	}
	s.skipSpace()
	if s.peek() != '=' {
		s.pos = len(s.text) // not TOML: stop
		return
	}
	s.next()
	s.skipSpace()
	s.value(path)
}

func (s *lineScanner) value(path string) {
	s.depth++
	defer func() { s.depth-- }()
	switch c := s.peek(); {
	case s.depth > 50:
		s.pos = len(s.text)
	case c == '"' || c == '\'':
		s.quoted()
	case c == '[':
		s.next()
		for i := 0; ; i++ {
			s.skipBlank()
			if s.pos >= len(s.text) || s.peek() == ']' {
				s.next()
				return
			}
			s.note(element(path, i), s.line)
			before := s.pos
			s.value(element(path, i))
			if s.pos == before {
				s.next()
			}
		}
	case c == '{':
		s.next()
		for {
			s.skipBlank()
			if s.pos >= len(s.text) || s.peek() == '}' {
				s.next()
				return
			}
			s.keyValue(path)
		}
	default:
		for s.pos < len(s.text) && !strings.ContainsRune(",]}#\r\n", rune(s.peek())) {
			s.next()
		}
	}
}

// quoted reads a string of any of the four kinds and returns what is between the quotes, without
// resolving escapes: keys with escapes are not worth more.
func (s *lineScanner) quoted() string {
	quote := s.next()
	end := string(quote)
	if strings.HasPrefix(s.text[s.pos:], end+end) {
		s.pos += 2
		end += end + string(quote)
	}
	start := s.pos
	for s.pos < len(s.text) {
		if quote == '"' && s.peek() == '\\' {
			s.next()
			s.next()
			continue
		}
		if strings.HasPrefix(s.text[s.pos:], end) {
			// A multi-line string may end in up to two quotes of its own before the closing three.
			for len(end) == 3 && s.pos+3 < len(s.text) && s.text[s.pos+3] == quote {
				s.pos++
			}
			inside := s.text[start:s.pos]
			s.pos += len(end)
			return inside
		}
		s.next()
	}
	return s.text[start:]
}

func (s *lineScanner) dottedKey() []string {
	var keys []string
	for {
		s.skipSpace()
		if c := s.peek(); c == '"' || c == '\'' {
			keys = append(keys, s.quoted())
		} else {
			start := s.pos
			for s.pos < len(s.text) && !strings.ContainsRune(" \t.=]\r\n#,{}[\"'", rune(s.peek())) {
				s.next()
			}
			keys = append(keys, s.text[start:s.pos])
		}
		s.skipSpace()
		if s.peek() != '.' {
			return keys
		}
		s.next()
	}
}

// note keeps the first line of a path: a table's header, not its reopening.
func (s *lineScanner) note(path string, line int) {
	if _, known := s.index[path]; !known {
		s.index[path] = line
	}
}

// at finds the line of a path, or of the nearest table around it.
func (ix lineIndex) at(path string) int {
	for path != "" {
		if line, ok := ix[path]; ok {
			return line
		}
		path = parent(path)
	}
	return 0
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// parent is the path without its last key or its last index.
func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}
