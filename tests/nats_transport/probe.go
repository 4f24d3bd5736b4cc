// The module of check_transport, in Go: compiled with examples/nats/worker/worker.go.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

type object = map[string]any

type probe struct {
	givenUp atomic.Int64
	mu      sync.Mutex
	present int
	gate    chan struct{}
}

func (p *probe) Describe() any {
	ops := object{}
	for _, op := range strings.Fields("echo large chunks meet fail pend emit broken wait finish cancelled die") {
		ops[op] = true
	}
	return object{"name": "probe", "kind": "tool", "capabilities": []string{}, "inputs": ops, "outputs": ops}
}

func (p *probe) Invoke(ctx context.Context, request *Request, chunk func(any) error) ([]byte, error) {
	var args struct {
		Size, Count, KiB, Of int
		Code                 string
		Details, State       json.RawMessage
	}
	if err := json.Unmarshal(request.Args, &args); err != nil {
		return nil, err
	}
	switch request.Op {
	case "echo":
		return answered(request.Args)
	case "large":
		return answered(strings.Repeat("x", args.Size))
	case "chunks":
		for n := 0; n < args.Count; n++ {
			if err := chunk(object{"n": n, "pad": strings.Repeat("x", args.KiB<<10)}); err != nil {
				return nil, err
			}
		}
		return answered(object{"count": args.Count})
	case "meet":
		select {
		case <-p.meet(args.Of):
			return answered(request.Args)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "fail":
		return json.Marshal(object{"ok": false, "error": object{"code": args.Code, "message": "as asked", "details": args.Details}})
	case "pend":
		calls := []object{{"name": "context.get", "args": object{}}}
		return json.Marshal(object{"pending": object{"syscalls": calls, "state": args.State}})
	case "emit":
		event := object{"event": "probe:said", "data": request.Args}
		return json.Marshal(object{"ok": true, "result": object{}, "events": []object{event}})
	case "broken":
		return []byte(`{"ok": tru, "result": 1}`), nil
	case "wait", "finish":
		<-ctx.Done()
		p.givenUp.Add(1)
		if request.Op == "finish" {
			return answered("finished all the same")
		}
		return nil, errCancelled
	case "cancelled":
		return answered(object{"count": p.givenUp.Load()})
	case "die":
		return nil, &Failure{"unreachable", "the module has ended"}
	}
	return json.Marshal(object{"ok": false, "error": object{"code": "unsupported_op", "message": fmt.Sprintf("no %q", request.Op)}})
}

// meet gives what is closed when so many requests are in flight.
func (p *probe) meet(of int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
	gate := p.gate
	if p.present++; p.present >= of {
		p.present, p.gate = 0, nil
		close(gate)
	}
	return gate
}

func answered(result any) ([]byte, error) { return json.Marshal(object{"ok": true, "result": result}) }

func main() { run(&probe{}) }
