package proxy

import (
	"maps"
	"strconv"
	"strings"
)

type modelError struct{ code, text string }

var errAborted = &modelError{"25P02", "current transaction is aborted, commands ignored until end of transaction block"}

// analyse is what Parse, and the beginning of a Query, do with a text.
func (m *modelServer) analyse(text string) *modelError {
	switch {
	case text == "selec":
		return &modelError{"42601", "syntax error at or near \"selec\""}
	case m.block == abortedBlock && text != "" && !endsBlock(text):
		return errAborted
	case strings.HasSuffix(text, "from nope"):
		return &modelError{"42P01", "relation \"nope\" does not exist"}
	}
	return nil
}

func endsBlock(text string) bool {
	return text == "commit" || strings.HasPrefix(text, "rollback")
}

// controls says whether a statement begins or ends a transaction, or must be one of its own.
func controls(text string) bool {
	switch strings.Fields(text + " x")[0] {
	case "begin", "commit", "rollback", "savepoint", "discard":
		return true
	}
	return false
}

// resultColumn is the name of the statement's column, "" when it has none.
func resultColumn(text string) string {
	switch {
	case strings.HasPrefix(text, "select count"):
		return "count"
	case strings.HasPrefix(text, "select"):
		return "?column?"
	case strings.HasPrefix(text, "values"):
		return "column1"
	case strings.HasPrefix(text, "show timezone"):
		return "TimeZone"
	case strings.HasPrefix(text, "show"):
		return strings.TrimPrefix(text, "show ")
	}
	return ""
}

// ourOwn turns what the proxy itself asks into the model's SQL.
var ourOwn = strings.NewReplacer("SELECT pg_catalog.set_config(", "set ", ",false)", "", "'application_name','", "application_name to '",
	"'timezone','", "timezone to '", "SET SESSION ", "set ", "RESET ", "reset ", " TO ", " to ", "DISCARD ALL", "discard all", `"`, "")

// query runs a simple Query.
func (m *modelServer) query(text string) {
	var list []string
	text = ourOwn.Replace(text)
	for _, part := range strings.Split(text, ";") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	for _, part := range list {
		if part == "selec" {
			m.fail(m.analyse(part)) // found before anything is run
			m.ready()
			return
		}
	}
	if len(list) == 0 {
		m.say("EmptyQuery")
	}
	delete(m.portals, "")
	m.several = len(list) > 1
	m.statements(list)
}

// statements runs what is left of a Query.
func (m *modelServer) statements(list []string) {
	for i, text := range list {
		if err := m.analyse(text); err != nil {
			m.fail(err)
			break
		}
		if table, ok := strings.CutSuffix(text, " from stdin"); ok {
			if err := m.beginCopy(&modelCopy{table: strings.TrimPrefix(table, "copy "), rest: list[i+1:]}); err != nil {
				m.fail(err)
				break
			}
			return
		}
		rows, tag, err := m.run(text, nil)
		if err != nil {
			m.fail(err)
			break
		}
		if column := resultColumn(text); column != "" {
			m.say("Columns " + strconv.Quote(column))
			for _, row := range rows {
				m.say("Row " + strconv.Quote(row))
			}
		}
		m.say("Complete " + strconv.Quote(tag))
	}
	m.endQuery()
}

func (m *modelServer) endQuery() {
	if m.block == noBlock {
		m.commit()
	}
	m.several = false
	m.ready()
}

// run executes one statement.
func (m *modelServer) run(text string, args []string) (rows []string, tag string, err *modelError) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return nil, "", nil
	}
	if (m.readOnly || m.blockReadOnly) && words[0] == "insert" {
		return nil, "", &modelError{"25006", "cannot execute INSERT in a read-only transaction"}
	}
	switch words[0] {
	case "select", "values", "show":
		return m.read(text, words, args)
	case "insert":
		value := words[len(words)-1]
		if len(args) > 0 {
			value = "(" + args[0] + ")"
		}
		if value == "(0)" {
			return nil, "", &modelError{"23514", "new row for relation \"" + words[2] + "\" violates check constraint \"t_a_check\""}
		}
		m.insert(words[2], 1)
		return nil, "INSERT 0 1", nil
	case "copy":
		m.say("CopyOut")
		m.say(`CopyData "1\n"`)
		m.say("CopyDone")
		return nil, "COPY 1", nil
	case "set", "reset":
		m.set(words)
		return nil, strings.ToUpper(words[0]), nil
	case "deallocate":
		if words[1] == "all" {
			m.named = map[string]*modelPlan{}
			return nil, "DEALLOCATE ALL", nil
		}
		return nil, "DEALLOCATE", m.deallocate(words[1])
	case "discard":
		if m.block != noBlock || m.several || m.pipelining {
			return nil, "", &modelError{"25001", "DISCARD ALL cannot run inside a transaction block"}
		}
		m.commit()
		m.named = map[string]*modelPlan{}
		m.settings = maps.Clone(modelDefaults)
		return nil, "DISCARD ALL", nil
	}
	tag, err = m.control(text, words)
	return nil, tag, err
}

func (m *modelServer) insert(table string, n int) {
	if m.pending == nil {
		m.pending = map[string]int{}
	}
	m.pending[table] += n
}

func (m *modelServer) read(text string, words, args []string) ([]string, string, *modelError) {
	switch {
	case strings.HasPrefix(text, "show"):
		name := strings.Replace(words[1], "timezone", "TimeZone", 1)
		return []string{m.settings[name]}, "SHOW", nil
	case strings.HasPrefix(text, "values"):
		var rows []string
		for i := range strings.Count(text, "(") {
			rows = append(rows, strconv.Itoa(i+1))
		}
		return rows, "SELECT " + strconv.Itoa(len(rows)), nil
	case words[1] == "count(*)":
		table := words[3]
		return []string{strconv.Itoa(m.db.rows[table] + m.pending[table])}, "SELECT 1", nil
	case strings.HasSuffix(text, "/0"):
		return nil, "", &modelError{"22012", "division by zero"}
	case len(args) > 0:
		return args, "SELECT 1", nil
	}
	return []string{words[1]}, "SELECT 1", nil
}

func (m *modelServer) set(words []string) {
	m.touch()
	value := ""
	local := words[1] == "local"
	if local {
		words = words[1:]
	}
	name := strings.Replace(words[1], "timezone", "TimeZone", 1)
	if words[0] == "reset" {
		value = modelDefaults[name]
	} else {
		value = strings.Trim(words[len(words)-1], "'")
	}
	old := m.settings[name]
	switch {
	case local && m.block == noBlock && !m.several:
		m.say(`Notice WARNING 25P01 "SET LOCAL can only be used in transaction blocks"`)
		// It lasts for the statement's own transaction.
		if m.local == nil {
			m.local = map[string]string{}
		}
		if _, ok := m.local[name]; !ok {
			m.local[name] = old
		}
	case local:
		if m.local == nil {
			m.local = map[string]string{}
		}
		if _, ok := m.local[name]; !ok {
			m.local[name] = old
		}
	default:
		delete(m.local, name)
	}
	m.settings[name] = value
}

func (m *modelServer) deallocate(name string) *modelError {
	if m.named[name] == nil {
		return &modelError{"26000", "prepared statement \"" + name + "\" does not exist"}
	}
	delete(m.named, name)
	return nil
}

// control runs BEGIN, COMMIT and their like.
func (m *modelServer) control(text string, words []string) (string, *modelError) {
	switch {
	case words[0] == "begin":
		if m.block != noBlock {
			m.say(`Notice WARNING 25001 "there is already a transaction in progress"`)
		}
		m.block = openBlock
		m.blockReadOnly = m.blockReadOnly || text == "begin read only"
		return "BEGIN", nil
	case words[0] == "savepoint":
		if m.block == noBlock {
			return "", &modelError{"25P01", "SAVEPOINT can only be used in transaction blocks"}
		}
		m.marks = append(m.marks, modelMark{words[1], maps.Clone(m.pending), maps.Clone(m.settings), maps.Clone(m.local)})
		return "SAVEPOINT", nil
	case strings.HasPrefix(text, "rollback to"):
		return m.rollbackTo(words[2])
	}
	tag := strings.ToUpper(words[0])
	if m.block == noBlock {
		m.say(`Notice WARNING 25P01 "there is no transaction in progress"`)
	}
	if m.block == abortedBlock || words[0] == "rollback" {
		tag = "ROLLBACK"
		m.rollback()
		m.endTransaction()
	} else {
		m.commit()
	}
	m.block = noBlock
	return tag, nil
}

func (m *modelServer) rollbackTo(name string) (string, *modelError) {
	if m.block == noBlock {
		return "", &modelError{"25P01", "ROLLBACK TO SAVEPOINT can only be used in transaction blocks"}
	}
	for i := len(m.marks) - 1; i >= 0; i-- {
		mark := m.marks[i]
		if mark.name != name {
			continue
		}
		m.marks = m.marks[:i+1]
		m.pending, m.settings, m.local = maps.Clone(mark.pending), maps.Clone(mark.settings), maps.Clone(mark.local)
		m.block = openBlock
		m.portals = map[string]*modelPortal{}
		return "ROLLBACK", nil
	}
	return "", &modelError{"3B001", "savepoint \"" + name + "\" does not exist"}
}
