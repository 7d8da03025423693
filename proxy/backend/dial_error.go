package backend

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"
)

// ServerError is an ErrorResponse with which a server ended a login. The session passes it on to
// its client as it is.
type ServerError struct {
	Severity string // not localized, as far as the server tells
	Code     string // SQLSTATE
	Message  string
	body     []byte
}

// parseServerError reads the body of an ErrorResponse and keeps a copy of it.
func parseServerError(body []byte) (*ServerError, error) {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return nil, fmt.Errorf("read the server's error: %w", err)
	}
	e := &ServerError{Severity: m.SeverityUnlocalized, Code: m.Code, Message: m.Message, body: append([]byte(nil), body...)}
	if e.Severity == "" {
		e.Severity = m.Severity
	}
	return e, nil
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("server says %s %s: %s", e.Severity, e.Code, e.Message)
}

// SQLState is the error's code.
func (e *ServerError) SQLState() string { return e.Code }

// unavailable says whether the node takes nobody now: it starts, stops or recovers from a crash.
func (e *ServerError) unavailable() bool {
	switch e.Code {
	case "57P01", "57P02", "57P03":
		return true
	}
	return false
}

// Body is the ErrorResponse without type and length: fields as they came, the final zero included.
// The caller must not change it.
func (e *ServerError) Body() []byte { return e.body }
