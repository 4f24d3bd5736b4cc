// A worker in Go for modules over NATS, written from amplifier_transport_nats/PROTOCOL.md: the sections are its own.
//
// This file is the wire, for any module in Go; wordcount.go is one. A goroutine for each request; a cancel ends its
// context. A connection that is lost ends all requests on it, and another one is made.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// A Module answers as section 2 of the kernel's protocol says.
type Module interface {
	// Describe gives what the module says of itself.
	Describe() any
	// Invoke gives the JSON text of a reply. An error says that there is none: a Failure, or "internal".
	// An error of chunk says that the context is done.
	Invoke(ctx context.Context, request *Request, chunk func(any) error) ([]byte, error)
}

// Request is what a kernel asks for. Nobody has looked at the arguments.
type Request struct {
	Op         string          `json:"op"`
	Args       json.RawMessage `json:"args"`
	Resume     json.RawMessage `json:"resume"`
	DeadlineMS int64           `json:"deadline_ms"`
}

// Failure has a code of the kernel's protocol, section 5.
type Failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (f *Failure) Error() string { return f.Code + ": " + f.Message }

const (
	messageBytes = 32 << 20  // limits.message_bytes of the kernel, unless its descriptor says otherwise
	partBytes    = 256 << 10 // of a part
	headerBytes  = 1 << 10   // room that our headers have in what the server takes as one message
	windowBytes  = 2 << 20   // that the other side has not read
	cost         = 256       // bytes for which each message counts beside its payload
	callsMax     = 4096      // in flight
)

var (
	errCancelled = &Failure{"cancelled", "nobody waits any more"}
	errBusy      = &Failure{"unreachable", fmt.Sprintf("its worker has %d requests in flight", callsMax)}
)

// run serves the module until it is told to stop.
func run(module Module) {
	servers := flag.String("servers", nats.DefaultURL, "addresses of NATS, with commas between")
	subject := flag.String("subject", "", "what the kernel's descriptor names")
	credentials := flag.String("credentials", "", "a file, as nsc makes it")
	flag.Parse()
	options := []nats.Option{nats.NoReconnect(), nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(1)}
	if *credentials != "" {
		options = append(options, nats.UserCredentials(*credentials))
	}
	stop, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	for stop.Err() == nil {
		if err := serve(stop, *servers, *subject, module, options); err != nil {
			log.Print(err)
			select {
			case <-time.After(time.Second):
			case <-stop.Done():
			}
		}
	}
}

// worker has one connection, and the requests that came over it, by their control subjects.
type worker struct {
	module Module
	nc     *nats.Conn
	inbox  string
	alive  context.Context // the connection's
	ending sync.WaitGroup
	mu     sync.Mutex
	count  int
	calls  map[string]*call
}

// serve takes requests from one connection until it is lost, or until stop is done and they all have ended.
func serve(stop context.Context, servers, subject string, module Module, options []nats.Option) error {
	alive, lose := context.WithCancel(context.Background())
	defer lose()
	nc, err := nats.Connect(servers, append(options, nats.ClosedHandler(func(*nats.Conn) { lose() }))...)
	if err != nil {
		return err
	}
	defer nc.Close()
	w := &worker{module: module, nc: nc, inbox: nats.NewInbox() + ".", alive: alive, calls: map[string]*call{}}
	if _, err := nc.Subscribe(w.inbox+"*", w.hear); err != nil {
		return err
	}
	var taking sync.WaitGroup
	var subscriptions []*nats.Subscription
	for _, method := range []string{"health", "describe", "invoke"} {
		subscription, err := nc.QueueSubscribeSync(subject+"."+method, "q")
		if err != nil {
			return err
		}
		subscriptions = append(subscriptions, subscription)
		taking.Add(1)
		go func(method string) {
			defer taking.Done()
			w.takeAll(method, subscription)
		}(method)
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	log.Printf("serving %s at %s", subject, nc.ConnectedAddr())
	select {
	case <-alive.Done():
		return fmt.Errorf("the connection to NATS was lost: %v", nc.LastError())
	case <-stop.Done():
	}
	for _, subscription := range subscriptions {
		if err := subscription.Drain(); err != nil { // section 5: until all that was sent to us has come
			return err
		}
	}
	taking.Wait()
	w.ending.Wait()
	return nc.Flush()
}

// takeAll takes requests until the connection is lost, or the last one has come after a Drain.
func (w *worker) takeAll(method string, subscription *nats.Subscription) {
	for {
		msg, err := subscription.NextMsgWithContext(w.alive)
		if err == nil {
			w.take(method, msg)
		} else if err != nats.ErrSlowConsumer { // which says that some were dropped: nobody answers those
			return
		}
	}
}

// take begins a request.
func (w *worker) take(method string, msg *nats.Msg) {
	if msg.Reply == "" {
		return // nobody wants to know
	}
	ctx, cancel := context.WithCancel(w.alive)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	c := &call{nc: w.nc, inbox: msg.Reply, control: fmt.Sprint(w.inbox, w.count), ctx: ctx, cancel: cancel,
		heard: make(chan struct{}, 1), whole: make(chan []byte, 1), chunks: msg.Header.Get("Amplifier-Chunks") != ""}
	if len(w.calls) >= callsMax {
		c.fail(errBusy)
		cancel()
		return
	}
	w.calls[c.control] = c
	w.ending.Add(1)
	go func() {
		defer w.ending.Done()
		defer w.forget(c)
		go c.remind()
		if err := c.serve(w.module, method, msg); err != nil {
			c.fail(err)
		}
	}()
}

func (w *worker) forget(c *call) {
	c.cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.calls, c.control)
}

// hear gives what comes at a control subject to its request. It is called for one message after the other.
func (w *worker) hear(msg *nats.Msg) {
	w.mu.Lock()
	c := w.calls[msg.Subject]
	w.mu.Unlock()
	if c != nil {
		c.hear(msg)
	}
}

// call is one request.
type call struct {
	nc             *nats.Conn
	inbox, control string
	ctx            context.Context
	cancel         context.CancelFunc
	chunks         bool          // somebody reads them
	heard          chan struct{} // something came at the control subject
	whole          chan []byte   // its parameters
	sent           int64         // bytes
	read           atomic.Int64  // bytes of those that the kernel has read
	parts          []byte
	total          int
	received, told int
	refused        atomic.Pointer[Failure]
}

// serve answers the request. An error says that there is no reply.
func (c *call) serve(module Module, method string, first *nats.Msg) error {
	if first.Header.Get("Amplifier") == "" {
		c.whole <- first.Data
	} else {
		c.hear(first)
		c.say("taken") // so that the kernel knows where to send the other parts
	}
	var params []byte
	select {
	case params = <-c.whole:
	case <-c.ctx.Done():
		return errCancelled
	}
	switch method {
	case "health":
		return c.answer(map[string]string{"status": "ok"})
	case "describe":
		return c.answer(module.Describe())
	}
	var request Request
	if len(params) > messageBytes {
		return &Failure{"bad_request", fmt.Sprintf("the request: expected at most %d bytes", messageBytes)}
	}
	if err := json.Unmarshal(params, &request); err != nil {
		return &Failure{"bad_request", "the request: " + err.Error()}
	}
	if left := time.Duration(request.DeadlineMS) * time.Millisecond; left > 0 {
		defer time.AfterFunc(left+time.Second, c.cancel).Stop()
	}
	reply, err := module.Invoke(c.ctx, &request, c.chunk)
	if err != nil {
		return err
	}
	return c.send(reply)
}

func (c *call) answer(result any) error {
	reply, err := json.Marshal(map[string]any{"ok": true, "result": result})
	if err != nil {
		return err
	}
	return c.send(reply)
}

func (c *call) chunk(value any) error {
	data, err := json.Marshal(map[string]any{"chunk": value})
	if err != nil || !c.chunks {
		return err
	}
	if c.ctx.Err() != nil {
		return errCancelled
	}
	return c.send(data)
}

// hear takes what the kernel says of the request (sections 2 and 3).
func (c *call) hear(msg *nats.Msg) {
	var offset, total int
	word := msg.Header.Get("Amplifier")
	switch {
	case word == "cancel", msg.Header.Get("Status") == "503" && len(msg.Data) == 0: // the kernel has gone
		c.cancel()
	case scan(word, "read %d", &total):
		if int64(total) > c.read.Load() {
			c.read.Store(int64(total))
		}
		select {
		case c.heard <- struct{}{}:
		default:
		}
	case scan(word, "part %d %d", &offset, &total):
		c.add(offset, total, msg.Data)
	default:
		c.refuse("expected a word of the protocol, got %.40q", word)
	}
}

func scan(word, format string, numbers ...any) bool {
	count, _ := fmt.Sscanf(word, format, numbers...)
	return count == len(numbers)
}

// add puts the parts of the request together (section 3).
func (c *call) add(offset, total int, data []byte) {
	if offset == 0 && c.parts == nil {
		c.total = total
	}
	switch {
	case total > messageBytes:
		c.refuse("expected at most %d bytes, got %d", messageBytes, total)
		return
	case len(data) == 0 || offset != len(c.parts) || total != c.total || offset+len(data) > total:
		c.refuse("expected the part of %d bytes at %d, got %d of %d", c.total, len(c.parts), offset, total)
		return
	}
	c.parts = append(c.parts, data...)
	c.received += len(data) + cost
	if len(c.parts) == total {
		c.whole <- c.parts
	} else if c.received-c.told >= windowBytes/2 {
		c.told = c.received
		c.say(fmt.Sprint("read ", c.received))
	}
}

// refuse ends a request that breaks the protocol.
func (c *call) refuse(format string, arguments ...any) {
	c.refused.Store(&Failure{"bad_request", "the request: " + fmt.Sprintf(format, arguments...)})
	c.cancel()
}

// send sends a chunk or a reply: a large one in parts, while the kernel reads them.
func (c *call) send(data []byte) error {
	size := partBytes
	if most := int(c.nc.MaxPayload()) - headerBytes; most < size {
		size = most
	}
	if len(data) <= size {
		return c.publish(data, "")
	}
	for at := 0; at < len(data); at += size {
		end := at + size
		if end > len(data) {
			end = len(data)
		}
		if err := c.publish(data[at:end], fmt.Sprintf("part %d %d", at, len(data))); err != nil {
			return err
		}
	}
	return nil
}

// publish waits until the kernel has read enough. Once nobody waits, it does not.
func (c *call) publish(data []byte, word string) error {
	c.sent += int64(len(data) + cost)
	for c.sent > windowBytes+c.read.Load() {
		select {
		case <-c.heard:
		case <-c.ctx.Done():
			return errCancelled
		}
	}
	return c.out(data, word)
}

func (c *call) say(word string) error { return c.out(nil, word) }

func (c *call) out(data []byte, word string) error {
	msg := &nats.Msg{Subject: c.inbox, Reply: c.control, Data: data}
	if word != "" {
		msg.Header = nats.Header{"Amplifier": {word}}
	}
	return c.nc.PublishMsg(msg)
}

// remind tells the kernel that the request goes on, until it has ended (section 2).
func (c *call) remind() {
	word, due := "taken", 100*time.Millisecond
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(due):
			c.say(word)
			word, due = "alive", time.Second
		}
	}
}

// fail says that there is no reply, and why.
func (c *call) fail(err error) {
	failure := &Failure{"internal", fmt.Sprintf("%.8000s", err)}
	errors.As(err, &failure)
	if refused := c.refused.Load(); refused != nil {
		failure = refused
	}
	if data, err := json.Marshal(failure); err == nil {
		c.out(data, "failed")
	}
}
