package pgnode

import "testing"

func TestTheConninfoOfARecoveryConfIsRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"# primary_conninfo = 'host=a'\n":      "",
		"standby_mode = on\n":                  "",
		"primary_conninfo = 'host=a'":          "host=a",
		"  Primary_Conninfo 'host=a' # x\n":    "host=a",
		"primary_conninfo='host=''a b'''\n":    "host='a b'",
		`primary_conninfo = 'password=\'\\'''`: `password='\'`,
		"primary_conninfo = 'host=a'\nrestore_command = 'x'\nprimary_conninfo = 'host=b'\n": "host=b",
		"primary_conninfo = 'host=a\n": "",
	} {
		if got := recoverySetting(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
