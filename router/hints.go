package router

import "bytes"

// parseHint reads the inside of a comment at a statement's start: "cstproxy: primary",
// "cstproxy: standby" (any case and spaces), or pgpool's "NO LOAD BALANCE".
func parseHint(b []byte) (RouteChoice, bool) {
	b = bytes.TrimSpace(b)
	if bytes.EqualFold(b, []byte("no load balance")) {
		return ChoosePrimary, true
	}
	const mark = "cstproxy:"
	if len(b) < len(mark) || !bytes.EqualFold(b[:len(mark)], []byte(mark)) {
		return ChooseAuto, false
	}
	switch word := bytes.TrimSpace(b[len(mark):]); {
	case bytes.EqualFold(word, []byte("primary")):
		return ChoosePrimary, true
	case bytes.EqualFold(word, []byte("standby")):
		return ChooseStandby, true
	}
	return ChooseAuto, false
}
