// Publishes what a sensor writes. What it takes to serve that is in serve.go, as
// `loom plugin new sensor --lang go --type source` wrote it; reading lines is in follow.go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "example.com/sensor/build/loompb"
)

// A reading is a line such as `temperature 21.5 C`; the unit may be left out.
type reading struct {
	name  string
	value float64
	unit  string
	at    time.Time
}

func parse(line string) (reading, error) {
	words := strings.Fields(line)
	if len(words) < 2 || len(words) > 3 {
		return reading{}, errors.New("not of the form NAME VALUE [UNIT]")
	}
	value, err := strconv.ParseFloat(words[1], 64)
	if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
		return reading{}, errors.New("its value is no number")
	}
	read := reading{name: words[0], value: value, at: time.Now()}
	if len(words) == 3 {
		read.unit = words[2]
	}
	return read, nil
}

type sensor struct {
	lock   sync.Mutex
	latest map[string]reading
}

func main() {
	s := &sensor{latest: map[string]reading{}}
	serve(definition{
		capabilities: map[string]capability{"sensor.latest": {"none", s.tell}},
		start:        s.start,
	})
}

func (s *sensor) start(ctx context.Context, h *host) error {
	var config struct {
		File   string `json:"file"`
		PollMs int    `json:"poll_ms"`
	}
	if err := json.Unmarshal(h.config, &config); err != nil {
		return err
	}
	folder, granted := os.LookupEnv("LOOM_FOLDER_READINGS")
	if !granted {
		return refusal{"PERMISSION_DENIED", "the sensor's file is in a folder that is not granted: " +
			`allow filesystem = ["readings"] and say with folders = { readings = "..." } where it is`}
	}
	path, every := filepath.Join(folder, config.File), time.Duration(config.PollMs)*time.Millisecond
	go follow(ctx, path, sizeOf(path), every, func(line string) { s.heard(ctx, h, line) })
	return nil
}

func (s *sensor) heard(ctx context.Context, h *host, line string) {
	read, err := parse(line)
	if err != nil {
		log.Printf("%q is left out: %v", line, err)
		return
	}
	s.lock.Lock()
	s.latest[read.name] = read
	s.lock.Unlock()
	event := &pb.Event{
		Topic: "sensor.reading", Type: "sensor.reading", Traceparent: "new",
		Priority: 50, Confidence: 1,
		Metadata: map[string]string{
			"name": read.name, "unit": read.unit,
			"value": strconv.FormatFloat(read.value, 'g', -1, 64),
		},
	}
	if err := h.publish(ctx, event); err != nil && ctx.Err() == nil {
		log.Printf("a reading of %s is lost: %v", read.name, err)
	}
}

func (s *sensor) tell(_ context.Context, _ *host, call *pb.ActionCall) (any, error) {
	var given struct{ Name string }
	if err := json.Unmarshal([]byte(call.Arguments), &given); err != nil {
		return nil, err
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	read, found := s.latest[given.Name]
	if !found {
		return nil, refusal{"NO_READING", "there is no reading of " + given.Name + " yet; there are: " +
			strings.Join(s.names(), ", ")}
	}
	age := time.Since(read.at).Seconds()
	return map[string]any{"value": read.value, "unit": read.unit, "age_s": age}, nil
}

func (s *sensor) names() []string {
	names := []string{}
	for name := range s.latest {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
