// A Loom plugin in Go from plugin.proto alone: what serving takes. What this one does is in plugin.go.
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

	pb "example.com/sensor/build/loompb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const tokenKey = "loom-token"

// definition is what a plugin is; names, effects and topics are those of plugin.toml.
type definition struct {
	capabilities  map[string]capability
	subscriptions []*pb.SubscriptionDescriptor
	start         func(ctx context.Context, h *host) error // ctx ends with the plugin
	heard         func(ctx context.Context, h *host, event *pb.Event) error
}

type capability struct {
	effects string
	serve   func(ctx context.Context, h *host, call *pb.ActionCall) (any, error)
}

// host is what a plugin may ask, each by its grant; `service Host` of plugin.proto has the rest.
type host struct {
	pb.HostClient
	config []byte
}

func (h *host) publish(ctx context.Context, event *pb.Event) error {
	event.Priority, event.Confidence = 50, 1
	_, err := h.Publish(ctx, &pb.PublishRequest{Event: event})
	return err
}

// token is sent with whatever is asked of the host.
type token string

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{tokenKey: string(t)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

// refusal is an error with a code: the host's own, such as INVALID_ARGUMENTS, or the plugin's.
type refusal struct{ code, message string }

func (r refusal) Error() string { return r.message }

func wireError(err error) *pb.ActionError {
	known := refusal{code: "CAPABILITY_ERROR", message: err.Error()}
	errors.As(err, &known)
	return &pb.ActionError{Code: known.code, Message: known.message}
}

// server is `service Plugin`. Session stays out: the host then uses the calls below.
type server struct {
	pb.UnimplementedPluginServer
	plugin  definition
	token   string
	host    *host
	running sync.Map // ids of the calls being served
	life    context.Context
	stop    context.CancelFunc
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
	if err := s.begin(request); err != nil {
		return &pb.InitResponse{Error: wireError(err)}, nil
	}
	meta := &pb.PluginMeta{Id: request.PluginId, Subscriptions: s.plugin.subscriptions}
	for name, capability := range s.plugin.capabilities {
		meta.Capabilities = append(meta.Capabilities,
			&pb.CapabilityDescriptor{Name: name, Effects: capability.effects})
	}
	return &pb.InitResponse{ApiVersion: "1", Meta: meta}, nil
}

func (s *server) begin(request *pb.InitRequest) error {
	if !slices.Contains(request.ApiVersions, "1") {
		return refusal{"PROTOCOL_MISMATCH", "this plugin speaks api 1, the host " +
			strings.Join(request.ApiVersions, ", ") + ": upgrade the older"}
	}
	connection, err := grpc.NewClient("unix:"+request.HostSocket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(token(s.token)))
	if err != nil {
		return err
	}
	s.host = &host{pb.NewHostClient(connection), []byte(request.Config)}
	if s.plugin.start == nil {
		return nil
	}
	return s.plugin.start(s.life, s.host)
}

// Invoke sends one message with the answer. To stream, send messages with Item set before it.
func (s *server) Invoke(call *pb.ActionCall, stream pb.Plugin_InvokeServer) error {
	s.running.Store(call.Id, true)
	defer s.running.Delete(call.Id)
	result := &pb.ActionResult{CallId: call.Id}
	if output, err := s.answer(stream.Context(), call); err != nil {
		result.Status, result.Error = pb.ActionStatus_ACTION_ERROR, wireError(err)
	} else {
		result.Output = output
	}
	return stream.Send(result)
}

func (s *server) answer(ctx context.Context, call *pb.ActionCall) (string, error) {
	capability, found := s.plugin.capabilities[call.Capability]
	if !found {
		return "", refusal{"CAPABILITY_NOT_FOUND", "this plugin does not offer " + call.Capability}
	}
	output, err := capability.serve(ctx, s.host, call)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(output)
	return string(text), err
}

// HandleEvent acknowledges by its return; with an error the event is delivered again or dead-lettered.
func (s *server) HandleEvent(ctx context.Context, event *pb.Event) (*pb.PluginResponse, error) {
	if s.plugin.heard != nil {
		if err := s.plugin.heard(ctx, s.host, event); err != nil {
			failed := &pb.PluginResponse{Status: pb.ActionStatus_ACTION_ERROR, Error: wireError(err)}
			return failed, nil
		}
	}
	return &pb.PluginResponse{}, nil
}

// Health names the calls still being served: one that the host gave up must vanish from here, or
// the host ends this process.
func (s *server) Health(context.Context, *pb.HealthRequest) (*pb.HealthStatus, error) {
	ids := []string{}
	s.running.Range(func(id, _ any) bool { ids = append(ids, id.(string)); return true })
	listed, err := json.Marshal(ids)
	return &pb.HealthStatus{Healthy: true, Message: "running:" + string(listed)}, err
}

func (s *server) Shutdown(context.Context, *pb.ShutdownRequest) (*pb.PluginResponse, error) {
	s.stop()
	return &pb.PluginResponse{}, nil
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

// serve runs until the host ends this process.
func serve(plugin definition) {
	s := &server{plugin: plugin, token: os.Getenv("LOOM_TOKEN")}
	os.Unsetenv("LOOM_TOKEN") // not for processes that this plugin starts
	s.life, s.stop = signal.NotifyContext(context.Background(), syscall.SIGTERM)
	go func() { // the host holds the other end of stdin, so its end means that the host is gone
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	listener, err := net.Listen("unix", os.Getenv("LOOM_SOCKET"))
	if err != nil {
		log.Fatal(err)
	}
	served := grpc.NewServer(grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.streamed),
		grpc.MaxRecvMsgSize(math.MaxInt32))
	pb.RegisterPluginServer(served, s)
	go served.Serve(listener)
	<-s.life.Done()
	time.AfterFunc(100*time.Millisecond, served.Stop)
	served.GracefulStop()
}
