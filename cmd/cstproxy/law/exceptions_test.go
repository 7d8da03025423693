package law

import "testing"

// exception allows one thing in one place. Why says what makes it harmless; the list stays short.
type exception struct {
	file, name, rule, why string
}

func exceptions() []exception {
	const answered = "is private, and its callers have just read the answer from the message or the state"
	return []exception{
		{"proxy/analyse.go", "analyseQuery", "bool", answered},
		{"proxy/outcome.go", "runElsewhere", "bool", answered},
		{"proxy/send.go", "makeRoom", "bool", answered},
		{"proxy/session.go", "letGo", "bool", answered},
		{"proxy/startup.go", "answerSSL", "bool", answered},
		{"ha/gossip/callbacks.go", "LocalState", "bool", "memberlist asks for the method in this form"},
		{"ha/gossip/callbacks.go", "MergeRemoteState", "bool", "memberlist asks for the method in this form"},
		{"ha/consensus/snapshots.go", "Create", "params", "raft asks for the method in this form"},
		{"proxy/proxy.go", "", "context", "a listening socket is opened at once; there is nothing to wait for or to end"},
	}
}

func TestLawOfExceptions(t *testing.T) {
	for _, e := range exceptions() {
		if e.file == "" || e.rule == "" || len(e.why) < 20 {
			t.Errorf("exception %+v does not say where, what and why", e)
		}
	}
}

func excused(s *source, name, rule string) bool {
	for _, e := range exceptions() {
		if e.file == s.path && e.rule == rule && (e.name == name || e.name == "") {
			return true
		}
	}
	return false
}
