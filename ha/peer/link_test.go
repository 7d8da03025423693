package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// start runs a link until the test ends.
func start(t testing.TB, key *Key, cfg Config, handlers map[string]Handler) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(cfg, key, listener, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	for method, h := range handlers {
		l.Handle(method, h)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("link of %s: %v", cfg.Member, err)
		}
	})
	return l
}

func member(l *Link) Member { return Member{l.Name(), l.Address().String()} }

func connections(l *Link) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.routes)
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func echo(_ context.Context, from string, body []byte) ([]byte, error) {
	return append([]byte(from+" "), body...), nil
}

func TestAMemberAnswersAnotherAndKnowsItsName(t *testing.T) {
	key := newKey(t)
	a := start(t, key, DefaultConfig("a"), nil)
	b := start(t, key, DefaultConfig("b"), map[string]Handler{
		"echo": echo,
		"no":   func(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("not today") },
		"much": func(context.Context, string, []byte) ([]byte, error) { return make([]byte, MaxBody+1), nil },
	})
	ctx := within(t)
	if answer, err := a.Call(ctx, member(b), "echo", []byte("hello")); err != nil || string(answer) != "a hello" {
		t.Errorf("%q, %v", answer, err)
	}
	body := make([]byte, MaxBody)
	if answer, err := a.Call(ctx, member(b), "echo", body); err == nil {
		t.Errorf("an answer of %d bytes came through", len(answer))
	}
	if answer, err := a.Call(ctx, member(b), "echo", body[2:]); err != nil || len(answer) != MaxBody {
		t.Errorf("%d bytes, %v", len(answer), err)
	}
	var refused *RefusedError
	for method, want := range map[string]string{"no": "not today", "nothing": "no such method", "much": "too long"} {
		if _, err := a.Call(ctx, member(b), method, nil); !errors.As(err, &refused) || !strings.Contains(refused.Text, want) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, err := a.Call(ctx, member(b), "echo", make([]byte, MaxBody+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long a body: %v", err)
	}
	if n := connections(a); n != 1 {
		t.Errorf("%d connections for one member", n)
	}
}

func TestCallsDoNotWaitForEachOther(t *testing.T) {
	key := newKey(t)
	release := make(chan struct{})
	var waiting atomic.Int32
	a := start(t, key, DefaultConfig("a"), nil)
	b := start(t, key, DefaultConfig("b"), map[string]Handler{
		"echo": echo,
		"wait": func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			waiting.Add(1)
			select {
			case <-release:
				return []byte("released"), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	})
	ctx := within(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if answer, err := a.Call(ctx, member(b), "wait", nil); err != nil || string(answer) != "released" {
				t.Errorf("%q, %v", answer, err)
			}
		}()
	}
	short, cancel := context.WithCancel(ctx)
	await(t, func() bool { return waiting.Load() == 8 })
	if _, err := a.Call(ctx, member(b), "echo", nil); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := a.Call(short, member(b), "wait", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that nobody waits for: %v", err)
	}
	close(release)
	wg.Wait()
}

func await(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}

func TestAMemberThatComesBackIsReachedAgain(t *testing.T) {
	key := newKey(t)
	a := start(t, key, DefaultConfig("a"), nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	for range 3 {
		b, err := New(DefaultConfig("b"), key, listener, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		b.Handle("echo", echo)
		ctx, cancel := context.WithCancel(within(t))
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		await(t, func() bool {
			_, err := a.Call(ctx, Member{"b", address}, "echo", nil)
			return err == nil
		})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, err := a.Call(within(t), Member{"b", address}, "echo", nil); err == nil {
			t.Fatal("a member that is gone answers")
		}
		if listener, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
	}
	listener.Close()
}

func TestTheMemberThatWasMeantIsReachedOrNobody(t *testing.T) {
	key := newKey(t)
	a := start(t, key, DefaultConfig("a"), nil)
	b := start(t, key, DefaultConfig("b"), map[string]Handler{"echo": echo})
	stranger := start(t, newKey(t), DefaultConfig("b"), map[string]Handler{"echo": echo})
	for name, to := range map[string]Member{
		"another member": {"c", member(b).Address}, "another fleet": member(stranger),
		"nobody": {"b", "127.0.0.1:1"}, "no name": {"", member(b).Address},
	} {
		if _, err := a.Call(within(t), to, "echo", nil); err == nil {
			t.Errorf("%s answers", name)
		}
		if _, err := a.DialStream(within(t), to); err == nil {
			t.Errorf("%s takes a stream", name)
		}
	}
	if n := connections(a); n != 0 {
		t.Errorf("%d connections remain", n)
	}
}

func TestStreamsAreToldFromCalls(t *testing.T) {
	key := newKey(t)
	a := start(t, key, DefaultConfig("a"), nil)
	b := start(t, key, DefaultConfig("b"), map[string]Handler{"echo": echo})
	accepted := make(chan error, 1)
	go func() {
		s, err := b.Streams().Accept()
		if err == nil {
			defer s.Close()
			if s.From != "a" {
				err = errors.New("from " + s.From)
			} else {
				_, err = io.Copy(s, io.LimitReader(s, 5))
			}
		}
		accepted <- err
	}()
	s, err := a.DialStream(within(t), member(b))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	buffer := make([]byte, 5)
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, buffer); err != nil || string(buffer) != "hello" {
		t.Errorf("%q, %v", buffer, err)
	}
	if err := <-accepted; err != nil {
		t.Error(err)
	}
	if _, err := a.Call(within(t), member(b), "echo", nil); err != nil {
		t.Error(err)
	}
	b.Streams().Close()
	if _, err := b.Streams().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

func TestALinkThatEndsTakesItsStreamsAndCallsWithIt(t *testing.T) {
	key := newKey(t)
	entered := make(chan struct{})
	b := start(t, key, DefaultConfig("b"), map[string]Handler{
		"wait": func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			close(entered)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(DefaultConfig("a"), key, listener, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	called := make(chan error, 1)
	go func() { _, err := a.Call(context.Background(), member(b), "wait", nil); called <- err }()
	<-entered
	cancel()
	if err := <-called; err == nil {
		t.Error("a call of an ended link was answered")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := a.Call(within(t), member(b), "wait", nil); !errors.Is(err, errEnded) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := a.DialStream(within(t), member(b)); err == nil {
		t.Error("a stream after the end")
	}
}

func TestALinkHasAName(t *testing.T) {
	for _, change := range []func(*Config){
		func(c *Config) { c.Member = "" }, func(c *Config) { c.Handshake = 0 }, func(c *Config) { c.Silence = 0 },
		func(c *Config) { c.MaxPeers = 0 }, func(c *Config) { c.MaxHandshakes = 0 }, func(c *Config) { c.MaxHandshakesPerHost = 0 },
	} {
		cfg := DefaultConfig("a")
		change(&cfg)
		if _, err := New(cfg, newKey(t), nil, zap.NewNop()); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
