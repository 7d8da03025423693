package admin

import (
	"errors"
	"fmt"
	"net"
)

// Config is the section [admin]: the HTTP server for operators, scripts and monitoring.
type Config struct {
	// Listen is the address of the HTTP server. Empty: no admin server, and then no ctl either.
	// The default is loopback only, because the read-only paths answer without a token.
	Listen string `toml:"listen"`
	// Token is what changing requests and the /backend paths must present. Empty: they are refused.
	Token string `toml:"token"`
	// TokenFile is a file that holds the token in its first line, instead of Token.
	TokenFile string `toml:"token_file"`
}

// DefaultConfig returns the admin server on its usual port, loopback only, without a token.
func DefaultConfig() Config { return Config{Listen: "127.0.0.1:8082"} }

// minToken is the length in bytes below which a token can be tried out over the network.
const minToken = 8

// Validate says everything that is wrong with c; each error starts with the key it is about.
func (c Config) Validate() error {
	var errs []error
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			errs = append(errs, fmt.Errorf(`listen: %q is not an address; write it like "127.0.0.1:8082"`, c.Listen))
		}
	}
	if c.Token != "" && len(c.Token) < minToken {
		errs = append(errs, fmt.Errorf("token: %d characters are too few; use at least %d, for example a UUID", len(c.Token), minToken))
	}
	return errors.Join(errs...)
}
