// Count words. A goroutine for each request; a cancel ends its context.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

type object = map[string]any

type request struct {
	ID     json.RawMessage
	Method string
	Params struct {
		ID     json.RawMessage // of the request that a cancel is about
		Op     string
		Args   map[string]json.RawMessage
		Resume *struct {
			State   state
			Results []struct {
				OK     bool
				Result struct{ Words int }
				Error  json.RawMessage // any integer in it passes unchanged
			}
		}
	}
}

type state struct {
	Asked int `json:"asked"`
	Words int `json:"words"`
}

type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details any    `json:"details,omitempty"`
}

func (f *failure) Error() string { return f.Message }

// argument reads one of the arguments. JSON's null would leave the value as it is, so it is refused by hand.
func (r *request) argument(name string, value any, expected string) error {
	raw := r.Params.Args[name]
	if raw == nil || bytes.Equal(raw, []byte("null")) || json.Unmarshal(raw, value) != nil {
		return &failure{Code: "bad_request", Message: "args." + name + ": expected " + expected}
	}
	return nil
}

func (r *request) words() (text string, words []string, err error) {
	err = r.argument("text", &text, "a string")
	divides := func(c rune) bool { return strings.ContainsRune(" \t\r\n", c) }
	return text, strings.FieldsFunc(text, divides), err
}

func count(_ context.Context, r *request) (any, error) {
	text, words, err := r.words()
	longest := ""
	for _, word := range words {
		if utf8.RuneCountInString(word) > utf8.RuneCountInString(longest) {
			longest = word
		}
	}
	return object{"words": len(words), "characters": utf8.RuneCountInString(text), "longest": longest}, err
}

type pending struct {
	Syscalls []object `json:"syscalls"`
	State    state    `json:"state"`
}

func report(_ context.Context, r *request) (any, error) {
	var tool string
	var texts []string
	if err := r.argument("tool", &tool, "a string"); err != nil {
		return nil, err
	}
	if err := r.argument("texts", &texts, "a list of strings"); err != nil {
		return nil, err
	}
	var s state
	if resume := r.Params.Resume; resume != nil {
		s = resume.State
		counted := resume.Results[0]
		if !counted.OK {
			message := fmt.Sprintf("text %d was not counted", s.Asked)
			return nil, &failure{"report_failed", message, object{"cause": counted.Error}}
		}
		s.Words += counted.Result.Words
	}
	if s.Asked == len(texts) {
		return object{"words": s.Words}, nil
	}
	invoke := object{"path": tool, "op": "count", "args": object{"text": texts[s.Asked]}}
	s.Asked++
	emit := object{"event": "words:counted", "data": object{"text": s.Asked}}
	return pending{[]object{{"name": "invoke", "args": invoke}, {"name": "emit", "args": emit}}, s}, nil
}

func tell(_ context.Context, r *request) (any, error) {
	_, words, err := r.words()
	for _, word := range words {
		write(object{"id": r.ID, "chunk": object{"word": word}})
	}
	return object{"words": len(words)}, err
}

func wait(ctx context.Context, r *request) (any, error) {
	var seconds float64
	if err := r.argument("seconds", &seconds, "a number"); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		return object{"seconds": seconds}, nil
	case <-ctx.Done():
		return nil, &failure{Code: "cancelled", Message: "nobody waits any more"}
	}
}

func fail(_ context.Context, r *request) (any, error) {
	var details map[string]json.RawMessage
	if err := r.argument("details", &details, "an object"); err != nil {
		return nil, err
	}
	return nil, &failure{"out_of_ink", "buy some", details}
}

func unsupported(_ context.Context, r *request) (any, error) {
	return nil, &failure{Code: "unsupported_op", Message: fmt.Sprintf("words does not know %q", r.Params.Op)}
}

var ops = map[string]func(context.Context, *request) (any, error){
	"count": count, "report": report, "tell": tell, "wait": wait, "fail": fail,
}

func answer(ctx context.Context, r *request) {
	op, known := ops[r.Params.Op]
	if !known {
		op = unsupported
	}
	result, err := op(ctx, r)
	if err != nil {
		write(object{"id": r.ID, "ok": false, "error": err})
	} else if calls, more := result.(pending); more {
		write(object{"id": r.ID, "pending": calls})
	} else {
		write(object{"id": r.ID, "ok": true, "result": result})
	}
}

var writing sync.Mutex

func write(message object) {
	writing.Lock()
	defer writing.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(message); err != nil { // Encode ends the line
		panic(err)
	}
}

func main() {
	description, err := os.ReadFile("../describe.json")
	if err != nil {
		panic(err)
	}
	var running sync.Map // what cancels a request, by its id
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadBytes('\n') // a bufio.Scanner would refuse lines of more than 64 KiB
		if err == io.EOF {
			return // and with main end the goroutines
		}
		r := &request{}
		if err := json.Unmarshal(line, r); err != nil {
			panic(err)
		}
		switch r.Method {
		case "health":
			write(object{"id": r.ID, "ok": true, "result": object{"status": "ok"}})
		case "describe":
			write(object{"id": r.ID, "ok": true, "result": json.RawMessage(description)})
		case "invoke":
			ctx, cancel := context.WithCancel(context.Background())
			running.Store(string(r.ID), cancel)
			go func() {
				defer running.Delete(string(r.ID))
				defer cancel()
				answer(ctx, r)
			}()
		case "cancel":
			if cancel, found := running.Load(string(r.Params.ID)); found {
				cancel.(context.CancelFunc)()
			}
		}
	}
}
