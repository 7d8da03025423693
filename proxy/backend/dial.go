package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/cstproxy/cstproxy/ha/topology"
	"github.com/cstproxy/cstproxy/proxy/auth"
	"github.com/cstproxy/cstproxy/proxy/reactor"
	"github.com/cstproxy/cstproxy/proxy/wire"
)

// ErrNoCredential says that a server wants a proof that the proxy has no means to give: no client
// has left SCRAM keys behind, and the password file has no line for the login.
var ErrNoCredential = errors.New("no credential for the server login")

// DialConfig says how connections to nodes are made.
type DialConfig struct {
	// Timeout bounds connect, TLS handshake and login together. A host without power does not
	// answer at all, so there is no "no bound".
	Timeout time.Duration
	// TLS is how the connection is protected.
	TLS TLSMode
	// CAFile holds the PEM certificates that may sign a server's. With it, TLSRequire verifies
	// like TLSVerifyCA, as in libpq.
	CAFile string
	// CertFile and KeyFile are a client certificate for servers that ask for one; PEM.
	CertFile, KeyFile string
	// PasswordFile has .pgpass lines for logins without keys; empty: none.
	PasswordFile string
	// ApplicationName is what servers see until a session sets its own.
	ApplicationName string
}

// DefaultDialConfig returns plain connections that are given up after 5 s.
func DefaultDialConfig() DialConfig {
	return DialConfig{Timeout: 5 * time.Second, TLS: TLSDisable, ApplicationName: "cstproxy"}
}

// Validate finds settings that cannot work.
func (c *DialConfig) Validate() error {
	var errs []error
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("connect timeout %s: want more than 0", c.Timeout))
	}
	errs = append(errs, c.validateTLS())
	return errors.Join(errs...)
}

// Credential is how the proxy proves that it may log in as a user. Both empty: the password file,
// or a server that trusts us.
type Credential struct {
	Keys     *auth.Keys // from the user's own login
	Password string
}

// DialRequest names one login.
type DialRequest struct {
	Node       topology.Node
	Database   string
	User       string
	Credential Credential
	// Parameters are more start-up parameters; they win over the Dialer's own.
	Parameters []wire.Parameter
}

// Login is a connection that a server has accepted, with what the server said of it.
type Login struct {
	// Transport is the connection, for Loop.Adopt; nil after Open and DialConn.
	Transport *reactor.Transport
	PID       uint32
	Secret    []byte
	// Parameters as the server reported them, in order.
	Parameters []wire.Parameter
}

// Stream is a blocking connection that can turn itself into a TLS client.
type Stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	StartTLS(ctx context.Context, cfg *tls.Config) error
}

// Dialer makes connections to nodes. It blocks, so it is called on goroutines, any number of them.
// Immutable: other settings are another Dialer.
type Dialer struct {
	cfg DialConfig
	tls *tls.Config // nil: never
}

// NewDialer reads the TLS files and returns a dialer.
func NewDialer(cfg DialConfig) (*Dialer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	t, err := cfg.load()
	if err != nil {
		return nil, err
	}
	return &Dialer{cfg: cfg, tls: t}, nil
}

// Dial connects and logs in; the connection is the caller's, to be adopted by a loop or closed.
// Errors are Open's.
func (d *Dialer) Dial(ctx context.Context, req DialRequest) (*Login, error) {
	var t *reactor.Transport
	login, err := d.Open(ctx, req, func(c net.Conn) (Stream, error) { t = reactor.NewTransport(c); return t, nil })
	if err != nil {
		return nil, err
	}
	login.Transport = t
	return login, nil
}

// Open connects, negotiates TLS and logs in on a stream that wrap makes of the new connection; the
// stream is the caller's afterwards, without deadline, and no byte behind the first ReadyForQuery
// has been read from it. Errors: *ServerError when the server refused (pass it on), ErrNoCredential,
// otherwise what went wrong on the way. After an error the stream is closed.
func (d *Dialer) Open(ctx context.Context, req DialRequest, wrap func(net.Conn) (Stream, error)) (*Login, error) {
	m, err := d.newLogin(req)
	if err != nil {
		return nil, err
	}
	var login *Login
	err = d.with(ctx, req.Node, wrap, func(ctx context.Context, s Stream) error {
		secure, err := d.secure(ctx, s, req.Node)
		if err != nil {
			return err
		}
		m.private = secure || nearby(req.Node.Host)
		login, err = converse(s, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	return login, nil
}

// Cancel asks a node to cancel what the connection with this pid and secret is doing, and returns
// when the node has taken the request (it closes the connection then). Nothing tells whether there
// was anything to cancel.
func (d *Dialer) Cancel(ctx context.Context, node topology.Node, pid uint32, secret []byte) error {
	var stream Stream
	wrap := func(c net.Conn) (Stream, error) { stream = &plainStream{Conn: c, raw: c}; return stream, nil }
	err := d.with(ctx, node, wrap, func(ctx context.Context, s Stream) error {
		if _, err := d.secure(ctx, s, node); err != nil {
			return err
		}
		if _, err := s.Write(cancelMessage(pid, secret)); err != nil {
			return fmt.Errorf("send the cancel request: %w", err)
		}
		// How the server closes differs (with or without TLS's goodbye, reset); only silence is
		// no answer.
		n, err := io.CopyN(io.Discard, s, maxLoginMessage)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() || n == maxLoginMessage {
			return errors.New("the server did not take the cancel request")
		}
		return nil
	})
	if stream != nil {
		_ = stream.Close() // the server has gone already
	}
	return err
}

// with connects and runs talk under the timeout and the context. After an error the stream is
// closed, otherwise its deadline is removed.
func (d *Dialer) with(ctx context.Context, node topology.Node, wrap func(net.Conn) (Stream, error), talk func(context.Context, Stream) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.cfg.Timeout, fmt.Errorf("no answer within %s", d.cfg.Timeout))
	defer cancel()
	network, address := where(node)
	var nd net.Dialer
	conn, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return because(ctx, err) // names the address already
	}
	s, err := wrap(conn)
	if err != nil {
		conn.Close()
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	// One call of SetDeadline at any time: it comes from the context's end or, once stop has
	// said that it will not, from here.
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	err = talk(ctx, s)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = s.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = s.Close() // err says more
		return fmt.Errorf("log in at %s: %w", address, because(ctx, err))
	}
	return nil
}

// because puts the context's end in the place of the I/O error that it caused.
func because(ctx context.Context, err error) error {
	var refusal *ServerError
	if ctx.Err() != nil && !errors.As(err, &refusal) {
		return context.Cause(ctx)
	}
	return err
}

// where is the network and address of a node; a host that begins with "/" is a folder with the
// server's Unix socket.
func where(n topology.Node) (network, address string) {
	if strings.HasPrefix(n.Host, "/") {
		return "unix", n.Host + "/.s.PGSQL." + strconv.Itoa(n.Port)
	}
	return "tcp", n.Address()
}

// nearby says whether bytes to the host stay on this machine.
func nearby(host string) bool {
	if strings.HasPrefix(host, "/") || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
