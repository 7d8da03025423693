package proxy

import (
	"maps"
	"strconv"
	"strings"

	"github.com/cstproxy/cstproxy/proxy/wire"
)

// modelDB is the data that all model servers of a test share: rows of table t, as committed.
// Replication takes no time.
type modelDB struct{ rows map[string]int }

// modelServer is a small PostgreSQL 15: its protocol, prepared statements, portals, transactions and
// a few parameters, with a handful of SQL (modelsql_test.go). TestTheModelAnswersAsPostgreSQLDoes
// holds it to the real one.
type modelServer struct {
	db       *modelDB
	readOnly bool // a standby
	// strict: nothing is described in a failed transaction. PostgreSQL describes what has no columns;
	// a proxy cannot parse it there for a server that lacks it.
	strict bool
	in     []byte
	out    []byte

	named         map[string]*modelPlan
	unnamed       *modelPlan
	portals       map[string]*modelPortal
	skipping      bool // after an error, up to Sync
	copying       *modelCopy
	pipelining    bool // something was executed in the pipeline already
	blockReadOnly bool
	several       bool // a Query of several statements runs

	block    blockState
	pending  map[string]int // rows of the open transaction
	marks    []modelMark    // its savepoints
	settings map[string]string
	before   map[string]string // settings at the transaction's start
	local    map[string]string // what SET LOCAL hides
	told     map[string]string // as last reported
}

type blockState byte

const (
	noBlock      blockState = 'I' // every statement, or pipeline, is a transaction
	openBlock    blockState = 'T'
	abortedBlock blockState = 'E'
)

type modelMark struct {
	name            string
	pending         map[string]int
	settings, local map[string]string
}

type modelPlan struct {
	text   string
	params int
}

type modelPortal struct {
	plan *modelPlan
	args []string
	rows []string // not yet fetched; nil before the first Execute
	ran  bool
}

// modelCopy is COPY FROM STDIN under way: rest are the statements of the Query behind it.
type modelCopy struct {
	table    string
	rows     int
	extended bool
	rest     []string
}

var modelDefaults = map[string]string{"TimeZone": "Etc/UTC", "application_name": ""}

func newModelServer(db *modelDB) *modelServer {
	return &modelServer{db: db, named: map[string]*modelPlan{}, portals: map[string]*modelPortal{}, block: noBlock,
		settings: maps.Clone(modelDefaults), told: maps.Clone(modelDefaults)}
}

// take is a peer's.
func (m *modelServer) take(b []byte) []byte {
	m.in = append(m.in, b...)
	for {
		typ, size, ok, err := wire.Header(m.in)
		if err != nil || !ok || size > len(m.in) {
			break
		}
		body := wire.Body(m.in[:size])
		m.in = m.in[size:]
		m.message(typ, body)
	}
	out := m.out
	m.out = nil
	return out
}

// end is a peer's: outside of COPY an end is met in silence.
func (m *modelServer) end() []byte {
	if m.copying == nil {
		return nil
	}
	m.fail(&modelError{"08006", "unexpected EOF on client connection with an open transaction"})
	m.say(`Error FATAL 08P01 "terminating connection because protocol synchronization was lost"`)
	return m.out
}

func (m *modelServer) message(typ byte, body []byte) {
	switch {
	case m.copying != nil:
		m.copyMessage(typ, body)
		return
	case typ == 'S':
		m.skipping = false
		m.finishPipeline()
		m.ready()
		return
	case m.skipping:
		return
	}
	var err *modelError
	switch typ {
	case 'Q':
		text, _ := wire.ReadQuery(body)
		m.unnamed = nil
		m.query(string(text))
		return
	case 'F':
		m.fail(&modelError{"42883", "function with OID 0 does not exist"})
		m.ready()
		return
	case 'P':
		err = m.parse(body)
	case 'B':
		err = m.bind(body)
	case 'D':
		err = m.describe(body)
	case 'E':
		err = m.execute(body)
	case 'C':
		m.close(body)
	}
	if err != nil {
		m.fail(err)
		m.skipping = true
	}
}

func (m *modelServer) ready() {
	for _, name := range []string{"TimeZone", "application_name"} {
		if m.told[name] != m.settings[name] {
			m.told[name] = m.settings[name]
			m.out = wire.AppendParameterStatus(m.out, name, m.settings[name])
		}
	}
	m.out = wire.AppendReady(m.out, byte(m.block))
}

// fail reports an error; a transaction block is aborted, a pipeline's own transaction undone.
func (m *modelServer) fail(e *modelError) {
	m.say("Error ERROR " + e.code + " " + strconv.Quote(e.text))
	m.rollback()
	if m.block != noBlock {
		m.block = abortedBlock
	}
	if m.block == noBlock {
		m.endTransaction()
	} else if n := len(m.marks); n > 0 {
		m.settings = maps.Clone(m.marks[n-1].settings) // what came before the savepoint goes with the block
	}
}

func (m *modelServer) say(notation string) {
	b, err := parseMessages(notation, true)
	if err != nil {
		panic(err)
	}
	m.out = append(m.out, b...)
}

// rollback undoes data and settings of the open transaction.
func (m *modelServer) rollback() {
	m.pending = nil
	if m.before != nil {
		m.settings = maps.Clone(m.before)
	}
	m.local = nil
	m.portals = map[string]*modelPortal{}
}

// touch notes the settings before the first change in a transaction.
func (m *modelServer) touch() {
	if m.before == nil {
		m.before = maps.Clone(m.settings)
	}
}

func (m *modelServer) commit() {
	for table, n := range m.pending {
		m.db.rows[table] += n
	}
	maps.Copy(m.settings, m.local)
	m.endTransaction()
}

func (m *modelServer) endTransaction() {
	m.pending, m.before, m.local, m.marks, m.blockReadOnly, m.pipelining = nil, nil, nil, nil, false, false
	m.portals = map[string]*modelPortal{}
}

// finishPipeline is what Sync does outside of a transaction block.
func (m *modelServer) finishPipeline() {
	if m.block == noBlock {
		m.commit()
	}
}

func (m *modelServer) parse(body []byte) *modelError {
	p, ok := wire.ReadParse(body)
	if !ok {
		return &modelError{"08P01", "invalid message format"}
	}
	if len(p.Name) == 0 {
		m.unnamed = nil
	}
	plan := &modelPlan{text: strings.TrimSpace(string(p.Text)), params: strings.Count(string(p.Text), "$")}
	if err := m.analyse(plan.text); err != nil {
		return err
	}
	if len(p.Name) == 0 {
		m.unnamed = plan
	} else if m.named[string(p.Name)] != nil {
		return &modelError{"42P05", "prepared statement \"" + string(p.Name) + "\" already exists"}
	} else {
		m.named[string(p.Name)] = plan
	}
	m.say("ParseComplete")
	return nil
}

func (m *modelServer) plan(name []byte) (*modelPlan, *modelError) {
	if len(name) == 0 {
		if m.unnamed == nil {
			return nil, &modelError{"26000", "unnamed prepared statement does not exist"}
		}
		return m.unnamed, nil
	}
	if p := m.named[string(name)]; p != nil {
		return p, nil
	}
	return nil, &modelError{"26000", "prepared statement \"" + string(name) + "\" does not exist"}
}

func (m *modelServer) bind(body []byte) *modelError {
	b, _ := wire.ReadBind(body)
	plan, err := m.plan(b.Statement)
	if err != nil {
		return err
	}
	r := &renderer{b: b.Rest}
	r.take(2 * r.int16())
	var args []string
	for n := r.int16(); n > 0; n-- {
		args = append(args, string(r.take(r.int32())))
	}
	switch {
	case len(args) != plan.params:
		return &modelError{"08P01", "bind message supplies " + strconv.Itoa(len(args)) + " parameters, but prepared statement \"" + string(b.Statement) + "\" requires " + strconv.Itoa(plan.params)}
	case m.block == abortedBlock && !endsBlock(plan.text):
		return errAborted
	case len(b.Portal) > 0 && m.portals[string(b.Portal)] != nil:
		return &modelError{"42P03", "cursor \"" + string(b.Portal) + "\" already exists"}
	}
	if strings.HasSuffix(plan.text, "/0") {
		return &modelError{"22012", "division by zero"} // constants are folded when a plan is made
	}
	m.portals[string(b.Portal)] = &modelPortal{plan: plan, args: args}
	m.say("BindComplete")
	return nil
}

func (m *modelServer) describe(body []byte) *modelError {
	kind, name, _ := wire.ReadTarget(body)
	var plan *modelPlan
	if kind == 'S' {
		var err *modelError
		if plan, err = m.plan(name); err != nil {
			return err
		}
	} else if p := m.portals[string(name)]; p != nil {
		plan = p.plan
	} else {
		return &modelError{"34000", "portal \"" + string(name) + "\" does not exist"}
	}
	columns := resultColumn(plan.text)
	if m.block == abortedBlock && (columns != "" || m.strict && kind == 'S') {
		return errAborted
	}
	if kind == 'S' {
		m.say("Parameters" + strings.Repeat(" 25", plan.params))
	}
	if columns == "" {
		m.say("NoData")
	} else {
		m.say("Columns " + strconv.Quote(columns))
	}
	return nil
}

func (m *modelServer) close(body []byte) {
	kind, name, _ := wire.ReadTarget(body)
	switch {
	case kind == 'P':
		delete(m.portals, string(name))
	case len(name) == 0:
		m.unnamed = nil
	default:
		delete(m.named, string(name))
	}
	m.say("CloseComplete")
}

func (m *modelServer) execute(body []byte) *modelError {
	name, _ := wire.ReadExecute(body)
	r := &renderer{b: body[len(name)+1:]}
	limit := r.int32()
	p := m.portals[string(name)]
	switch {
	case p == nil:
		return &modelError{"34000", "portal \"" + string(name) + "\" does not exist"}
	case p.plan.text == "":
		m.say("EmptyQuery")
		return nil
	case m.block == abortedBlock && !endsBlock(p.plan.text):
		return errAborted
	case p.ran && p.rows == nil:
		if resultColumn(p.plan.text) == "" {
			return &modelError{"55000", "portal \"" + string(name) + "\" cannot be run"}
		}
		m.say(`Complete "SELECT 0"`)
		return nil
	case !p.ran:
		p.ran = true
		if table, ok := strings.CutSuffix(p.plan.text, " from stdin"); ok {
			return m.beginCopy(&modelCopy{table: strings.TrimPrefix(table, "copy "), extended: true})
		}
		rows, tag, err := m.run(p.plan.text, p.args)
		if err != nil {
			return err
		}
		m.pipelining = m.pipelining || !controls(p.plan.text)
		if resultColumn(p.plan.text) == "" {
			m.say("Complete " + strconv.Quote(tag))
			return nil
		}
		p.rows = rows
	}
	m.fetch(p, limit)
	return nil
}

func (m *modelServer) fetch(p *modelPortal, limit int) {
	n := len(p.rows)
	if limit > 0 {
		n = min(n, limit)
	}
	for _, row := range p.rows[:n] {
		m.say("Row " + strconv.Quote(row))
	}
	p.rows = p.rows[n:]
	if limit > 0 && n == limit {
		m.say("Suspended")
		return
	}
	p.rows = nil
	tag := "SELECT "
	if strings.HasPrefix(p.plan.text, "show") {
		m.say(`Complete "SHOW"`)
		return
	}
	m.say("Complete " + strconv.Quote(tag+strconv.Itoa(n)))
}

func (m *modelServer) beginCopy(c *modelCopy) *modelError {
	if m.readOnly || m.blockReadOnly {
		return &modelError{"25006", "cannot execute COPY FROM in a read-only transaction"}
	}
	m.copying = c
	m.say("CopyIn")
	return nil
}

func (m *modelServer) copyMessage(typ byte, body []byte) {
	c := m.copying
	var err *modelError
	switch typ {
	case 'd':
		for line := range strings.Lines(string(body)) {
			if strings.HasPrefix(line, "x") && err == nil {
				err = &modelError{"22P02", "invalid input syntax for type integer: \"x\""}
			}
			c.rows++
		}
		if err == nil {
			return
		}
	case 'f':
		err = &modelError{"57014", "COPY from stdin failed: " + strings.TrimSuffix(string(body), "\x00")}
	case 'c':
	default:
		return // Sync and Flush are ignored
	}
	m.copying = nil
	m.pipelining = c.extended
	if err == nil {
		m.insert(c.table, c.rows)
		m.say("Complete " + strconv.Quote("COPY "+strconv.Itoa(c.rows)))
		if !c.extended {
			m.statements(c.rest)
		}
		return
	}
	m.fail(err)
	if c.extended {
		m.skipping = true
		return
	}
	m.endQuery()
}
