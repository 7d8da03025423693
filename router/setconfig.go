package router

import "regexp"

// setConfig is the one form of set_config that is as good as a SET: Django and others set the time
// zone with it when they connect. Values with a backslash are left out, because how they are read
// depends on settings; search_path is, because its value is a list in a string.
var setConfig = regexp.MustCompile(`(?is)^\s*SELECT\s+(?:pg_catalog\s*\.\s*)?set_config\s*\(\s*'(\w+)'\s*,\s*('(?:[^'\\]|'')*')\s*,\s*(?:false|'f'|'false')\s*\)\s*;?\s*$`)

// asSet replaces the pin of such a statement by what it does: it sets a tracked parameter.
func asSet(text []byte, effects []Effect) []Effect {
	if len(effects) != 1 || effects[0].Kind != EffectPin || effects[0].Name != PinSetConfig || len(text) > 300 {
		return effects
	}
	m := setConfig.FindSubmatch(text)
	if m == nil {
		return effects
	}
	name := tracked([]byte(foldString(string(m[1]))))
	if name == "" || name == "search_path" {
		return effects
	}
	return []Effect{{Kind: EffectSet, Name: name, Value: string(m[2])}}
}
