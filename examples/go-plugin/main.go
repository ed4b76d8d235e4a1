// A Loom plugin in Go from plugin.proto alone, without an SDK: what serving takes.
// What the plugin does is in demo.go.
package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "example.com/loom-plugin/build/loompb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const tokenKey = "loom-token"

// server is `service Plugin`. Session stays out: the host then uses the calls below.
type server struct {
	pb.UnimplementedPluginServer
	token   string
	stopped chan struct{}
	stop    sync.Once
	running sync.Map // ids of the calls being served
	demo    *demo
}

// actionError is a refusal with the code of an ActionError.
type actionError struct{ *pb.ActionError }

func (e actionError) Error() string { return e.Message }

func failed(code, message string) error {
	return actionError{&pb.ActionError{Code: code, Message: message}}
}

// wireError is what an error is on the wire; the host's own ActionErrors come in the trailer.
func wireError(err error) *pb.ActionError {
	var known actionError
	if errors.As(err, &known) {
		return known.ActionError
	}
	return &pb.ActionError{Code: "CAPABILITY_ERROR", Message: err.Error()}
}

func fromHost(err error, trailer metadata.MD) error {
	attached := trailer.Get("loom-error-bin")
	sent := &pb.ActionError{}
	if err != nil && len(attached) > 0 && proto.Unmarshal([]byte(attached[0]), sent) == nil {
		return actionError{sent}
	}
	return err
}

// admit refuses whoever does not present the token that the host gave to this process.
func (s *server) admit(ctx context.Context) error {
	given := strings.Join(metadata.ValueFromIncomingContext(ctx, tokenKey), "")
	if subtle.ConstantTimeCompare([]byte(given), []byte(s.token)) != 1 {
		return status.Error(codes.Unauthenticated, tokenKey+" is missing or wrong")
	}
	return nil
}

func (s *server) Init(_ context.Context, request *pb.InitRequest) (*pb.InitResponse, error) {
	if !slices.Contains(request.ApiVersions, "1") {
		message := "this plugin speaks api 1, the host " + strings.Join(request.ApiVersions, ", ")
		refusal := &pb.ActionError{Code: "PROTOCOL_MISMATCH", Message: message + ": upgrade the older"}
		return &pb.InitResponse{Error: refusal}, nil
	}
	connection, err := grpc.NewClient("unix:"+request.HostSocket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	s.demo = &demo{host: pb.NewHostClient(connection), token: s.token, dataDir: request.DataDir}
	if err := json.Unmarshal([]byte(request.Config), &s.demo.config); err != nil {
		return nil, err
	}
	meta := &pb.PluginMeta{Id: request.PluginId, Subscriptions: subscriptions}
	for name, capability := range capabilities {
		meta.Capabilities = append(meta.Capabilities,
			&pb.CapabilityDescriptor{Name: name, Effects: capability.effects})
	}
	return &pb.InitResponse{ApiVersion: "1", Meta: meta}, nil
}

// Invoke answers with any number of messages with Item, then exactly one without.
func (s *server) Invoke(request *pb.ActionCall, stream pb.Plugin_InvokeServer) error {
	s.running.Store(request.Id, true)
	defer s.running.Delete(request.Id)
	result, err := s.serve(request, stream)
	if err != nil {
		result = &pb.ActionResult{Status: pb.ActionStatus_ACTION_ERROR, Error: wireError(err)}
	}
	result.CallId = request.Id
	return stream.Send(result)
}

func (s *server) serve(request *pb.ActionCall, stream pb.Plugin_InvokeServer) (*pb.ActionResult, error) {
	capability, found := capabilities[request.Capability]
	if !found {
		return nil, failed("CAPABILITY_NOT_FOUND", "this plugin does not offer "+request.Capability)
	}
	output, result, err := capability.serve(s.demo, request, stream)
	if err != nil {
		return nil, err
	}
	if result == nil {
		result = &pb.ActionResult{}
	}
	text, err := json.Marshal(output)
	result.Output = string(text)
	return result, err
}

// HandleEvent acknowledges by its return; with an error the event is delivered again or dead-lettered.
func (s *server) HandleEvent(ctx context.Context, event *pb.Event) (*pb.PluginResponse, error) {
	if err := s.demo.heard(ctx, event); err != nil {
		return &pb.PluginResponse{Status: pb.ActionStatus_ACTION_ERROR, Error: wireError(err)}, nil
	}
	return &pb.PluginResponse{}, nil
}

// Health names the calls still being served: one that the host gave up must vanish from here, or
// the host ends this process.
func (s *server) Health(context.Context, *pb.HealthRequest) (*pb.HealthStatus, error) {
	if s.demo.config.Unwell != "" {
		return &pb.HealthStatus{Message: s.demo.config.Unwell}, nil
	}
	ids := []string{}
	s.running.Range(func(id, _ any) bool { ids = append(ids, id.(string)); return true })
	listed, err := json.Marshal(ids)
	return &pb.HealthStatus{Healthy: true, Message: "running:" + string(listed)}, err
}

func (s *server) Shutdown(context.Context, *pb.ShutdownRequest) (*pb.PluginResponse, error) {
	s.end()
	return &pb.PluginResponse{}, nil
}

func (s *server) end() {
	s.stop.Do(func() {
		if s.demo != nil {
			s.demo.stop()
		}
		close(s.stopped)
	})
}

func (s *server) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	return next(ctx, request)
}

func (s *server) streamed(served any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := s.admit(stream.Context()); err != nil {
		return err
	}
	return next(served, stream)
}

// endWithHost: the host holds the other end of stdin, so its end means that the host is gone.
func (s *server) endWithHost() {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		s.end()
	}()
}

func main() {
	s := &server{token: os.Getenv("LOOM_TOKEN"), stopped: make(chan struct{})}
	os.Unsetenv("LOOM_TOKEN") // not for processes that this plugin starts
	listener, err := net.Listen("unix", os.Getenv("LOOM_SOCKET"))
	if err != nil {
		log.Fatal(err)
	}
	served := grpc.NewServer(grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.streamed),
		grpc.MaxRecvMsgSize(math.MaxInt32))
	pb.RegisterPluginServer(served, s)
	s.endWithHost()
	go served.Serve(listener)
	<-s.stopped
	time.AfterFunc(100*time.Millisecond, served.Stop)
	served.GracefulStop()
}
