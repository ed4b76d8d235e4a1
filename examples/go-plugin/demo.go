package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "example.com/loom-plugin/build/loompb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// demo is the plugin's state: what Init told, and the host to ask.
type demo struct {
	host    pb.HostClient
	token   string
	dataDir string
	config  struct {
		Greeting string `json:"greeting"`
		Unwell   string `json:"unwell"`
	}
}

// serve gives the JSON output and, where there is binary beside it, a result that holds it.
type serve func(*demo, *pb.ActionCall, pb.Plugin_InvokeServer) (any, *pb.ActionResult, error)

var subscriptions = []*pb.SubscriptionDescriptor{{Topic: "room.*", Qos: pb.QoSLevel_QOS_BATCHED}}

type capability struct {
	effects string
	serve   serve
}

var capabilities map[string]capability

func init() {
	capabilities = map[string]capability{
		"demo.echo":        {"none", echo},
		"demo.reverse":     {"none", reverse},
		"demo.count":       {"none", count},
		"demo.fail":        {"none", fail},
		"demo.bug":         {"none", bug},
		"demo.wait":        {"none", wait},
		"demo.loop":        {"once", loop},
		"demo.exit":        {"once", exit},
		"demo.host":        {"idempotent", everything},
		"demo.secret":      {"none", secret},
		"demo.nested":      {"none", nested},
		"demo.environment": {"none", environment},
	}
}

func echo(d *demo, call *pb.ActionCall, _ pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	var given struct {
		Value json.RawMessage `json:"value"`
	}
	err := json.Unmarshal([]byte(call.Arguments), &given)
	return map[string]any{"value": given.Value, "config": d.config}, nil, err
}

func reverse(_ *demo, call *pb.ActionCall, _ pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	slices.Reverse(call.Payload)
	result := &pb.ActionResult{Payload: call.Payload, ContentType: call.ContentType}
	return map[string]int{"size": len(call.Payload)}, result, nil
}

func count(_ *demo, call *pb.ActionCall, stream pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	given := struct{ To, Size int }{Size: 1}
	if err := json.Unmarshal([]byte(call.Arguments), &given); err != nil {
		return nil, nil, err
	}
	payload := []byte(strings.Repeat("x", given.Size))
	for index := range given.To {
		item := &pb.ActionResult{CallId: call.Id, Item: true, Payload: payload,
			Output: fmt.Sprintf(`{"index": %d}`, index), ContentType: "application/octet-stream"}
		if err := stream.Send(item); err != nil {
			return nil, nil, err
		}
	}
	return map[string]int{"counted": given.To}, nil, nil
}

func fail(_ *demo, call *pb.ActionCall, _ pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	var given struct{ Code, Message string }
	if err := json.Unmarshal([]byte(call.Arguments), &given); err != nil {
		return nil, nil, err
	}
	return nil, nil, failed(given.Code, given.Message)
}

func bug(*demo, *pb.ActionCall, pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	return nil, nil, errors.New("no such thing")
}

func wait(d *demo, call *pb.ActionCall, stream pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	<-stream.Context().Done()
	record := &pb.LogRecord{Level: "info", Message: "stopped waiting", CallId: call.Id}
	_, err := d.host.Log(d.asking(context.Background()), record)
	return nil, nil, err
}

func loop(*demo, *pb.ActionCall, pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	for {
		time.Sleep(time.Second)
	}
}

func exit(_ *demo, call *pb.ActionCall, _ pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	var given struct{ Code int }
	if err := json.Unmarshal([]byte(call.Arguments), &given); err != nil {
		return nil, nil, err
	}
	fmt.Println("about to exit")
	os.Exit(given.Code)
	return nil, nil, nil
}

// asking adds the token, which the host wants with every request.
func (d *demo) asking(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, tokenKey, d.token)
}

// invoke gives all messages of a call to another plugin; it is given up with ctx.
func (d *demo) invoke(ctx context.Context, call *pb.ActionCall) ([]*pb.ActionResult, error) {
	stream, err := d.host.Invoke(d.asking(ctx), call)
	if err != nil {
		return nil, err
	}
	var messages []*pb.ActionResult
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return messages, nil
		}
		if err != nil {
			return nil, fromHost(err, stream.Trailer())
		}
		messages = append(messages, message)
	}
}

func itemsOf(messages []*pb.ActionResult) []json.RawMessage {
	var items []json.RawMessage
	for _, message := range messages {
		if message.Item {
			items = append(items, json.RawMessage(message.Output))
		}
	}
	return items
}

// everything that a plugin may ask of the host, each by its grant.
func everything(d *demo, call *pb.ActionCall, stream pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	ctx := d.asking(stream.Context())
	output, err := d.stored(ctx)
	if err != nil {
		return nil, nil, err
	}
	record := &pb.LogRecord{Level: "warning", Message: "in the middle", CallId: call.Id}
	if _, err := d.host.Log(ctx, record); err != nil {
		return nil, nil, err
	}
	span := &pb.SpanRecord{Name: "part", CallId: call.Id, DurationUs: 5}
	if _, err := d.host.Span(ctx, span); err != nil {
		return nil, nil, err
	}
	event := &pb.Event{Topic: "notes", Type: "made", Payload: []byte("data"),
		Metadata: map[string]string{"a": "b"}, Priority: 7, Confidence: 1}
	published, err := d.host.Publish(ctx, &pb.PublishRequest{Event: event, CallId: call.Id})
	if err != nil {
		return nil, nil, err
	}
	output["published"] = published.Delivered
	output["remaining_ms"] = call.RemainingMs
	return output, nil, d.invoked(stream.Context(), call, output)
}

func (d *demo) stored(ctx context.Context) (map[string]any, error) {
	_, err := d.host.KvPut(ctx, &pb.KvRequest{Key: "key", Value: []byte("value")})
	_, second := d.host.KvPut(ctx, &pb.KvRequest{Key: "gone"})
	_, third := d.host.KvDelete(ctx, &pb.KvRequest{Key: "gone"})
	missing, fourth := d.host.KvGet(ctx, &pb.KvRequest{Key: "nothing"})
	found, fifth := d.host.KvGet(ctx, &pb.KvRequest{Key: "key"})
	listed, sixth := d.host.KvList(ctx, &pb.KvRequest{})
	if err := errors.Join(err, second, third, fourth, fifth, sixth); err != nil {
		return nil, err
	}
	return map[string]any{
		"missing": !missing.Found, "value": string(found.Value), "keys": listed.Keys,
	}, nil
}

func (d *demo) invoked(ctx context.Context, call *pb.ActionCall, output map[string]any) error {
	asked := func(name, arguments string, stream bool) *pb.ActionCall {
		return &pb.ActionCall{Capability: name, Arguments: arguments, Stream: stream,
			Payload: []byte("in"), ParentCallId: call.Id, RemainingMs: call.RemainingMs}
	}
	reversed, err := d.invoke(ctx, asked("lab.reverse", "{}", false))
	counted, second := d.invoke(ctx, asked("lab.count", `{"to": 2}`, false))
	streamed, third := d.invoke(ctx, asked("lab.count", `{"to": 3}`, true))
	if err := errors.Join(err, second, third); err != nil {
		return err
	}
	answer := reversed[0]
	output["reversed"] = []any{json.RawMessage(answer.Output), string(answer.Payload), answer.Provider}
	output["items"], output["streamed"] = itemsOf(counted), itemsOf(streamed)
	return nil
}

func secret(d *demo, call *pb.ActionCall, stream pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	var given struct{ Name string }
	if err := json.Unmarshal([]byte(call.Arguments), &given); err != nil {
		return nil, nil, err
	}
	var trailer metadata.MD
	request := &pb.SecretRequest{Name: given.Name}
	reply, err := d.host.GetSecret(d.asking(stream.Context()), request, grpc.Trailer(&trailer))
	return map[string]string{"secret": reply.GetValue()}, nil, fromHost(err, trailer)
}

func nested(d *demo, call *pb.ActionCall, stream pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	request := &pb.ActionCall{Capability: "lab.nap", Arguments: `{"seconds": 3600}`,
		ParentCallId: call.Id, RemainingMs: call.RemainingMs}
	messages, err := d.invoke(stream.Context(), request)
	return itemsOf(messages), nil, err
}

func environment(*demo, *pb.ActionCall, pb.Plugin_InvokeServer) (any, *pb.ActionResult, error) {
	var names []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil, nil
}

func (d *demo) heard(ctx context.Context, event *pb.Event) error {
	switch said := string(event.Payload); {
	case said == "poison":
		return failed("POISONED", "will not eat that")
	case said == "crash" && event.DeliveryAttempt == 1:
		os.Exit(9)
	}
	told := map[string]string{
		"topic": event.Topic, "attempt": strconv.Itoa(int(event.DeliveryAttempt)),
	}
	maps.Copy(told, event.Metadata)
	note := &pb.Event{Topic: "notes", Type: "heard", Payload: event.Payload, Metadata: told,
		Priority: 50, Confidence: 1}
	_, err := d.host.Publish(d.asking(ctx), &pb.PublishRequest{Event: note})
	return err
}

func (d *demo) stop() {
	os.WriteFile(filepath.Join(d.dataDir, "stopped"), nil, 0o600)
}
