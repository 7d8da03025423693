package wire

import (
	"bytes"
	"testing"
)

func TestALengthThatNoMessageCanHaveIsRefused(t *testing.T) {
	for _, b := range [][]byte{
		{'Q', 0, 0, 0, 3}, {'Q', 0, 0, 0, 0}, {'Q', 0x40, 0, 0, 0}, {'Q', 0xff, 0xff, 0xff, 0xff},
	} {
		if _, _, _, err := Header(b); err == nil {
			t.Errorf("Header(% x): no error", b)
		}
	}
	if typ, size, ok, err := Header([]byte{'S', 0, 0, 0, 4}); typ != 'S' || size != 5 || !ok || err != nil {
		t.Errorf("Sync: %c %d %v %v", typ, size, ok, err)
	}
}

func TestOptionsAreReadAsPostgreSQLReadsThem(t *testing.T) {
	got, err := SplitOptions(`-c geqo=off --work-mem=4MB -csearch_path=a\ b`)
	if err != nil {
		t.Fatal(err)
	}
	want := []Parameter{{"geqo", "off"}, {"work_mem", "4MB"}, {"search_path", "a b"}}
	if len(got) != len(want) {
		t.Fatalf("got %q", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("option %d: got %q, want %q", i, got[i], want[i])
		}
	}
	for _, bad := range []string{"-x", "-c", "-c geqo", "geqo=off"} {
		if _, err := SplitOptions(bad); err == nil {
			t.Errorf("SplitOptions(%q): no error", bad)
		}
	}
}

func TestWhatIsBuiltIsReadBack(t *testing.T) {
	types := []byte{0, 1, 0, 0, 0, 23}
	msg := AppendParse(nil, "s", "select $1", types)
	p, ok := ReadParse(Body(msg))
	if !ok || string(p.Name) != "s" || string(p.Text) != "select $1" || !bytes.Equal(p.Types, types) {
		t.Errorf("Parse: %q %v", p, ok)
	}
	msg = AppendBind(nil, Bind{Portal: []byte("p"), Rest: []byte{0, 0, 0, 0, 0, 0}}, "x")
	b, ok := ReadBind(Body(msg))
	if !ok || string(b.Portal) != "p" || string(b.Statement) != "x" || len(b.Rest) != 6 {
		t.Errorf("Bind: %q %v", b, ok)
	}
	if typ, size, ok, err := Header(msg); typ != 'B' || size != len(msg) || !ok || err != nil {
		t.Errorf("Bind's header: %c %d", typ, size)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add(AppendParse(nil, "s", "select 1", []byte{0, 0}))
	f.Add(AppendTarget(nil, 'D', 'S', "s"))
	f.Add(AppendQuery(nil, []byte("select 1")))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, size, ok, err := Header(b)
		if err != nil || !ok || size > len(b) {
			return
		}
		body := Body(b[:size])
		ReadParse(body)
		ReadBind(body)
		ReadTarget(body)
		ReadExecute(body)
		ReadQuery(body)
		ReadParameterStatus(body)
		ErrorField(body, 'C')
	})
}

func FuzzStartup(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x14\x00\x03\x00\x00user\x00a\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02"))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, ok, err := StartupSize(b)
		if err != nil || !ok || size > len(b) {
			return
		}
		ReadCancel(b[:size])
		s, err := ReadStartup(b[:size])
		if err != nil {
			return
		}
		if _, err := SplitOptions(s.Get("options")); err != nil {
			return
		}
	})
}
