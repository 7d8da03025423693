package conf

import _ "embed" // for the sample

//go:embed cstproxy.toml
var sample string

// Sample is a commented configuration file in which every setting stands at its default; only its
// cluster is an example.
func Sample() string { return sample }
