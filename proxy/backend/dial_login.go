package backend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

const (
	// maxLoginMessage bounds one message before ReadyForQuery, in bytes; the longest honest
	// ones are errors and notices.
	maxLoginMessage = 64 << 10
	// maxLoginBytes bounds all of them together: login triggers may write notices.
	maxLoginBytes = 1 << 20
)

// loginPhase is where a login stands. A server that says things out of turn is not believed.
type loginPhase int

const (
	loginAsked     loginPhase = iota // start-up packet sent
	loginPlain                       // a password was sent
	loginChallenge                   // SCRAM: first message sent
	loginSignature                   // SCRAM: proof sent
	loginProved                      // SCRAM: the server has proved itself
	loginAccepted                    // AuthenticationOk
	loginReady
)

// loginMachine is the proxy's half of one login, without I/O.
type loginMachine struct {
	user       string
	parameters map[string]string
	credential Credential
	find       func() (password string, found bool, err error) // in the password file
	private    bool                                            // nobody can listen: clear text is no risk
	phase      loginPhase
	scram      *auth.ScramClient
	login      Login
}

func (d *Dialer) newLogin(req DialRequest) (*loginMachine, error) {
	p := map[string]string{"user": req.User}
	if req.Database != "" {
		p["database"] = req.Database
	}
	if d.cfg.ApplicationName != "" {
		p["application_name"] = d.cfg.ApplicationName
	}
	for _, x := range req.Parameters {
		p[x.Name] = x.Value
	}
	for name, value := range p {
		if name == "" || strings.ContainsRune(name, 0) || strings.ContainsRune(value, 0) {
			return nil, errors.New("a start-up parameter with a zero byte or without a name")
		}
	}
	key := auth.Login{Host: req.Node.Host, Port: strconv.Itoa(req.Node.Port), Database: req.Database, User: req.User}
	find := func() (string, bool, error) { return auth.FindPassword(d.cfg.PasswordFile, key) }
	return &loginMachine{user: req.User, parameters: p, credential: req.Credential, find: find}, nil
}

// converse runs the machine on a stream, message by message. It reads exactly what belongs to the
// login, so that nothing behind ReadyForQuery is lost; some forty small reads are nothing against
// the server's fork.
func converse(s Stream, m *loginMachine) (*Login, error) {
	hello, err := startupMessage(m.parameters)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(hello); err != nil {
		return nil, fmt.Errorf("send the start-up packet: %w", err)
	}
	var header [5]byte
	var body []byte
	for total := 0; m.phase != loginReady; {
		if _, err := io.ReadFull(s, header[:]); err != nil {
			return nil, fmt.Errorf("read the server's answer: %w", err)
		}
		n := int64(binary.BigEndian.Uint32(header[1:])) - 4
		if n < 0 || n > maxLoginMessage {
			return nil, fmt.Errorf("the server sent a message of %d bytes during the login", n)
		}
		if total += int(n); total > maxLoginBytes {
			return nil, fmt.Errorf("the server sent more than %d bytes during the login", maxLoginBytes)
		}
		body = slices.Grow(body[:0], int(n))[:n]
		if _, err := io.ReadFull(s, body); err != nil {
			return nil, fmt.Errorf("read the server's answer: %w", err)
		}
		reply, err := m.step(header[0], body)
		if err != nil {
			return nil, err
		}
		if len(reply) > 0 {
			if _, err := s.Write(reply); err != nil {
				return nil, fmt.Errorf("answer the server: %w", err)
			}
		}
	}
	return &m.login, nil
}

// step takes one message; the reply is what to send, if anything.
func (m *loginMachine) step(typ byte, body []byte) (reply []byte, err error) {
	switch typ {
	case 'E':
		refusal, err := parseServerError(body)
		if err != nil {
			return nil, err
		}
		return nil, refusal
	case 'N':
		return nil, nil
	case 'R':
		return m.authenticate(body)
	}
	if m.phase != loginAccepted {
		return nil, fmt.Errorf("the server sent message %q before it accepted the login", typ)
	}
	switch typ {
	case 'S':
		var p pgproto3.ParameterStatus
		if err := p.Decode(body); err != nil {
			return nil, fmt.Errorf("read a parameter: %w", err)
		}
		m.login.Parameters = append(m.login.Parameters, wire.Parameter{Name: p.Name, Value: p.Value})
	case 'K':
		var k pgproto3.BackendKeyData
		if err := k.Decode(body); err != nil {
			return nil, fmt.Errorf("read the cancel key: %w", err)
		}
		if len(k.SecretKey) > 256 {
			return nil, errors.New("the server's cancel key is longer than 256 bytes")
		}
		m.login.PID, m.login.Secret = k.ProcessID, k.SecretKey
	case 'Z':
		if len(body) != 1 || body[0] != 'I' {
			return nil, errors.New("the server is ready, but not idle")
		}
		m.phase = loginReady
	default:
		return nil, fmt.Errorf("the server sent message %q during the login", typ)
	}
	return nil, nil
}

func (m *loginMachine) authenticate(body []byte) (reply []byte, err error) {
	if len(body) < 4 {
		return nil, errors.New("the server's authentication request is too short")
	}
	switch kind := binary.BigEndian.Uint32(body); {
	case kind == pgproto3.AuthTypeOk:
		return nil, m.accept()
	case kind == pgproto3.AuthTypeSASLContinue && m.phase == loginChallenge:
		final, err := m.scram.Continue(body[4:])
		if err != nil {
			return nil, err
		}
		m.phase = loginSignature
		return saslResponse(final)
	case kind == pgproto3.AuthTypeSASLFinal && m.phase == loginSignature:
		m.phase = loginProved
		return nil, m.scram.Final(body[4:])
	case m.phase != loginAsked:
		return nil, fmt.Errorf("the server sent authentication request %d out of turn", kind)
	case kind == pgproto3.AuthTypeSASL:
		return m.startScram(body)
	case kind == pgproto3.AuthTypeMD5Password:
		var r pgproto3.AuthenticationMD5Password
		if err := r.Decode(body); err != nil {
			return nil, fmt.Errorf("read the md5 salt: %w", err)
		}
		password, err := m.password("md5")
		if err != nil {
			return nil, err
		}
		m.phase = loginPlain
		return passwordMessage(md5Answer(password, m.user, r.Salt))
	case kind == pgproto3.AuthTypeCleartextPassword:
		password, err := m.password("password")
		if err != nil {
			return nil, err
		}
		if !m.private {
			return nil, errors.New("the server asks for the password in clear text over a connection without TLS")
		}
		m.phase = loginPlain
		return passwordMessage(password)
	default:
		return nil, fmt.Errorf("the server asks for authentication method %d, which is not supported", kind)
	}
}

// accept takes AuthenticationOk. In the middle of SCRAM it would mean that the server skips its
// own proof.
func (m *loginMachine) accept() error {
	switch m.phase {
	case loginAsked, loginPlain, loginProved:
		m.phase = loginAccepted
		return nil
	}
	return errors.New("the server accepts the login without proving itself")
}

func (m *loginMachine) startScram(body []byte) ([]byte, error) {
	var r pgproto3.AuthenticationSASL
	if err := r.Decode(body); err != nil {
		return nil, fmt.Errorf("read the server's SASL mechanisms: %w", err)
	}
	if !slices.Contains(r.AuthMechanisms, auth.Mechanism) {
		return nil, fmt.Errorf("the server offers SASL mechanisms %q, not %s", r.AuthMechanisms, auth.Mechanism)
	}
	if m.credential.Keys != nil {
		m.scram = auth.NewScramClient(m.credential.Keys)
	} else {
		password, err := m.password("scram-sha-256")
		if err != nil {
			return nil, err
		}
		m.scram = auth.NewScramClientWithPassword(password)
	}
	m.phase = loginChallenge
	return saslInitial(auth.Mechanism, m.scram.First())
}

// password is the credential's own or the password file's.
func (m *loginMachine) password(method string) (string, error) {
	if m.credential.Password != "" {
		return m.credential.Password, nil
	}
	password, found, err := m.find()
	if err != nil {
		return "", err
	}
	if !found {
		return "", fmt.Errorf("%w: the server asks user %q for %s", ErrNoCredential, m.user, method)
	}
	if strings.ContainsRune(password, 0) {
		return "", errors.New("a zero byte in the password file's password")
	}
	return password, nil
}
