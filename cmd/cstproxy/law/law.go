// Package law holds no code, only tests: what the architecture and the house style forbid and a
// program can see, in imports and in syntax trees. Each test lists every violation with its place.
package law
