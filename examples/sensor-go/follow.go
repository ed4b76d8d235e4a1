package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"os"
	"strings"
	"syscall"
	"time"
)

// longest is the size of a line in bytes; what is longer is no reading.
const longest = 1024

// sizeOf is how much of a file there is already; nothing of a pipe.
func sizeOf(path string) int64 {
	about, err := os.Stat(path)
	if err != nil || !about.Mode().IsRegular() {
		return 0
	}
	return about.Size()
}

// follow gives each whole line of a file that grows, or of a named pipe, until ctx ends. It begins
// `from` bytes behind the beginning. A file that is not there yet is waited for; one that was cut
// short or replaced is read from its own beginning.
func follow(ctx context.Context, path string, from int64, every time.Duration, each func(string)) {
	missing := false
	for ctx.Err() == nil {
		// Without waiting, since nobody may have opened the other end of a pipe.
		file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			err = read(ctx, file, from, every, each)
			file.Close()
		}
		from = 0
		if err != nil && !missing && ctx.Err() == nil {
			log.Printf("waiting for the sensor: %v", err)
		}
		missing = err != nil
		pause(ctx, every)
	}
}

// read returns nil where the file was cut short or replaced.
func read(ctx context.Context, file *os.File, from int64, every time.Duration, each func(string)) error {
	context.AfterFunc(ctx, func() { file.Close() }) // ends a Read that waits
	var split lines
	taken := from
	if from > 0 {
		if _, err := file.Seek(from, io.SeekStart); err != nil {
			return err
		}
	}
	chunk := make([]byte, 4096)
	for {
		count, err := file.Read(chunk)
		taken += int64(count)
		split.add(chunk[:count], each)
		if err != nil && err != io.EOF {
			return err
		}
		if err == io.EOF {
			if over, err := ended(file, taken); over || err != nil {
				return err
			}
			pause(ctx, every)
		}
	}
}

// ended tells whether the file shrank below what was taken of it, or another has its name.
func ended(file *os.File, taken int64) (bool, error) {
	about, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(file.Name())
	if err != nil {
		return false, err
	}
	shrank := about.Mode().IsRegular() && about.Size() < taken
	return shrank || !os.SameFile(about, named), nil
}

func pause(ctx context.Context, every time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(every):
	}
}

// lines puts chunks together again into lines.
type lines struct {
	begun   []byte // of a line whose end has not come
	tooLong bool   // leave out what comes up to the next end of a line
}

func (l *lines) add(chunk []byte, each func(string)) {
	for {
		end := bytes.IndexByte(chunk, '\n')
		if end < 0 {
			break
		}
		l.begin(chunk[:end])
		if line := strings.TrimSpace(string(l.begun)); line != "" && !l.tooLong {
			each(line)
		}
		l.begun, l.tooLong = l.begun[:0], false
		chunk = chunk[end+1:]
	}
	l.begin(chunk)
}

func (l *lines) begin(part []byte) {
	if !l.tooLong && len(l.begun)+len(part) > longest {
		log.Printf("a line of more than %d bytes is left out", longest)
		l.begun, l.tooLong = l.begun[:0], true
	}
	if !l.tooLong {
		l.begun = append(l.begun, part...)
	}
}
