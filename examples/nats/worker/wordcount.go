package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

type object = map[string]any

// wordcount counts words, tells each as a chunk, and waits until it is told to stop.
type wordcount struct{}

var (
	text    = object{"type": "object", "properties": object{"text": object{"type": "string"}}, "required": []string{"text"}}
	seconds = object{"type": "object", "properties": object{"seconds": object{"type": "number"}}, "required": []string{"seconds"}}
)

func (wordcount) Describe() any {
	return object{
		"name": "wordcount", "kind": "tool", "version": "1.0.0", "capabilities": []string{},
		"inputs":  object{"count": text, "tell": text, "wait": seconds},
		"outputs": object{"count": object{"type": "object"}, "tell": object{"type": "object"}, "wait": object{}},
	}
}

func (wordcount) Invoke(ctx context.Context, request *Request, chunk func(any) error) ([]byte, error) {
	switch request.Op {
	case "count", "tell":
		var args struct{ Text *string }
		if err := json.Unmarshal(request.Args, &args); err != nil || args.Text == nil {
			return refused("bad_request", "args.text: expected a string")
		}
		words := strings.Fields(*args.Text)
		for _, word := range words {
			if request.Op == "count" {
				break
			}
			if err := chunk(object{"word": word}); err != nil {
				return nil, err
			}
		}
		return answered(object{"words": len(words)})
	case "wait":
		var args struct{ Seconds *float64 }
		if err := json.Unmarshal(request.Args, &args); err != nil || args.Seconds == nil {
			return refused("bad_request", "args.seconds: expected a number")
		}
		select {
		case <-time.After(time.Duration(*args.Seconds * float64(time.Second))):
			return answered(object{"seconds": *args.Seconds})
		case <-ctx.Done():
			return refused("cancelled", "nobody waits any more")
		}
	}
	return refused("unsupported_op", fmt.Sprintf("wordcount does not know %q", request.Op))
}

func answered(result any) ([]byte, error) {
	return json.Marshal(object{"ok": true, "result": result})
}

func refused(code, message string) ([]byte, error) {
	return json.Marshal(object{"ok": false, "error": object{"code": code, "message": message}})
}

func main() { run(wordcount{}) }
