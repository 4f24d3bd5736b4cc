// The module `words` as a gRPC server in Go, written from module.proto and the protocol's text.
//
// words [CERT KEY CA]: with the files of a certificate it speaks TLS, and asks clients for theirs. It prints its port.
// The messages of the service have one field of bytes, as google.protobuf.BytesValue has.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/ioutil"
	"log"
	"net"
	"os"
	"strings"

	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const service = "amplifier.v1.Module"
const large = 64 << 20

type object = map[string]interface{}

var text = object{"type": "object", "properties": object{"text": object{"type": "string"}}, "required": []string{"text"}}
var description = object{
	"name": "words", "kind": "tool", "version": "1.0.0", "capabilities": []string{},
	"inputs":  object{"count": text, "tell": text, "wait": object{"type": "object"}},
	"outputs": object{"count": object{"type": "object"}, "tell": object{"type": "object"}, "wait": object{}},
}

func failed(code, message string, details object) object {
	return object{"ok": false, "error": object{"code": code, "message": message, "details": details}}
}

// answer carries out one invocation. What it streams goes to chunk.
func answer(ctx context.Context, params []byte, chunk func(object) error) object {
	var asked struct {
		Op   string
		Args map[string]json.RawMessage
	}
	if err := json.Unmarshal(params, &asked); err != nil {
		return failed("bad_request", "params: "+err.Error(), object{})
	}
	var said string
	if asked.Op == "count" || asked.Op == "tell" {
		if err := json.Unmarshal(asked.Args["text"], &said); err != nil {
			return failed("bad_request", "args.text: expected a string", object{"path": "args.text"})
		}
	}
	words := strings.Fields(said)
	switch asked.Op {
	case "count":
		return object{"ok": true, "result": object{"words": len(words)}}
	case "tell":
		for _, word := range words {
			if err := chunk(object{"chunk": object{"word": word}}); err != nil {
				return failed("cancelled", err.Error(), object{})
			}
		}
		return object{"ok": true, "result": object{"words": len(words)}}
	case "wait":
		<-ctx.Done()
		fmt.Fprintln(os.Stderr, "cancelled")
		return failed("cancelled", "the caller gave up", object{})
	}
	return failed("unsupported_op", "words knows count, tell and wait", object{})
}

func encoded(message object) (*wrappers.BytesValue, error) {
	data, err := json.Marshal(message)
	return &wrappers.BytesValue{Value: data}, err
}

type decoder = func(interface{}) error

func describe(_ interface{}, _ context.Context, read decoder, _ grpc.UnaryServerInterceptor) (interface{}, error) {
	if err := read(&wrappers.BytesValue{}); err != nil {
		return nil, err
	}
	return encoded(object{"ok": true, "result": description})
}

func invoke(_ interface{}, ctx context.Context, read decoder, _ grpc.UnaryServerInterceptor) (interface{}, error) {
	var request wrappers.BytesValue
	if err := read(&request); err != nil {
		return nil, err
	}
	return encoded(answer(ctx, request.Value, func(object) error { return nil }))
}

func invokeStream(_ interface{}, stream grpc.ServerStream) error {
	var request wrappers.BytesValue
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	send := func(message object) error {
		data, err := encoded(message)
		if err != nil {
			return err
		}
		return stream.SendMsg(data)
	}
	return send(answer(stream.Context(), request.Value, send))
}

// secured gives the option for TLS with the certificate of some files, if there are any.
func secured(files []string) []grpc.ServerOption {
	if len(files) == 0 {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(files[0], files[1])
	if err != nil {
		log.Fatal(err)
	}
	authority, err := ioutil.ReadFile(files[2])
	if err != nil {
		log.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority)
	config := tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(&config))}
}

func main() {
	options := append(secured(os.Args[1:]), grpc.MaxRecvMsgSize(large), grpc.MaxSendMsgSize(large))
	server := grpc.NewServer(options...)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*interface{})(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Describe", Handler: describe},
			{MethodName: "Invoke", Handler: invoke},
		},
		Streams: []grpc.StreamDesc{{StreamName: "InvokeStream", Handler: invokeStream, ServerStreams: true}},
	}, struct{}{})
	states := health.NewServer()
	states.SetServingStatus(service, grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, states)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() { // the end of stdin is the end
		ioutil.ReadAll(os.Stdin)
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
