// An echo between two Go processes over hashicorp/go-plugin's gRPC, timed from the host's side.
//
// Started without arguments it starts itself as the plugin, calls it ROUNDS times CALLS times with
// 16 B, 1 KB and 32 KB, and prints JSON: bytes per call to microseconds per call, one per round.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	rounds = 11
	calls  = 300
	method = "/bench.Echo/Say"
)

var handshake = plugin.HandshakeConfig{
	ProtocolVersion:  1,
	MagicCookieKey:   "LOOM_BENCH",
	MagicCookieValue: "echo",
}

// say is the served method: what comes goes back.
func say(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	data := new(wrapperspb.BytesValue)
	err := decode(data)
	return data, err
}

var service = grpc.ServiceDesc{
	ServiceName: "bench.Echo",
	HandlerType: (*any)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Say", Handler: say}},
}

type echo struct{ plugin.NetRPCUnsupportedPlugin }

func (echo) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	server.RegisterService(&service, struct{}{})
	return nil
}

func (echo) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

func main() {
	plugins := plugin.PluginSet{"echo": echo{}}
	if os.Getenv(handshake.MagicCookieKey) == handshake.MagicCookieValue {
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig: handshake, Plugins: plugins, GRPCServer: plugin.DefaultGRPCServer,
		})
		return
	}
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  handshake,
		Plugins:          plugins,
		Cmd:              exec.Command(os.Args[0]),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.New(&hclog.LoggerOptions{Output: io.Discard}),
	})
	err := measure(client)
	client.Kill()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure(client *plugin.Client) error {
	protocol, err := client.Client()
	if err != nil {
		return err
	}
	raw, err := protocol.Dispense("echo")
	if err != nil {
		return err
	}
	found := map[int][]float64{}
	for round := 0; round <= rounds; round++ {
		for _, size := range []int{16, 1024, 32 * 1024} {
			us, err := perCall(raw.(*grpc.ClientConn), size)
			if err != nil {
				return err
			}
			if round > 0 { // the first one warms up
				found[size] = append(found[size], us)
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func perCall(conn *grpc.ClientConn, size int) (float64, error) {
	data, answer := wrapperspb.Bytes(make([]byte, size)), new(wrapperspb.BytesValue)
	began := time.Now()
	for i := 0; i < calls; i++ {
		if err := conn.Invoke(context.Background(), method, data, answer); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(began).Microseconds()) / calls, nil
}
