// Command textparse tells which lines Prometheus takes as one sample.
//
// Standard input holds lines, each led by its length: four bytes, the highest first. Standard
// output gets one line of JSON for each of them: how the text format reads it, and how OpenMetrics
// does. Each reading has the labels in order, by name and value in turns, and the timestamp in
// milliseconds, or the reason why the line is not a sample.
//
// A line is parsed as a whole exposition of its format. Besides the parser's own checks, two checks
// of a scrape are made: names are valid, and no label stands twice.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

type reading struct {
	Labels []string `json:"labels,omitempty"`
	Ms     *int64   `json:"ms,omitempty"`
	Reason string   `json:"reason,omitempty"`
}

func refused(reason string) reading {
	return reading{Reason: reason[:min(len(reason), 80)]}
}

// read returns the only sample of an exposition, or why it has none.
func read(parser textparse.Parser) reading {
	var found *reading
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, strconv.ErrRange) {
			return refused("value out of range")
		}
		if err != nil {
			return refused(err.Error())
		}
		if entry != textparse.EntrySeries {
			return refused("not a sample")
		}
		if found != nil {
			return refused("two samples")
		}
		var set labels.Labels
		parser.Labels(&set)
		if !set.Has(model.MetricNameLabel) {
			return refused("no metric name")
		}
		if !set.IsValid(model.UTF8Validation) {
			return refused("invalid name")
		}
		if name, twice := set.HasDuplicateLabelNames(); twice {
			return refused("label twice: " + name)
		}
		_, ms, _ := parser.Series()
		found = &reading{}
		if ms != nil {
			at := *ms
			found.Ms = &at
		}
		set.Range(func(l labels.Label) {
			found.Labels = append(found.Labels, l.Name, l.Value)
		})
	}
	if found == nil {
		return refused("nothing")
	}
	return *found
}

func main() {
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriterSize(os.Stdout, 1<<20)
	encoder, symbols := json.NewEncoder(out), labels.NewSymbolTable()
	for {
		var size uint32
		if err := binary.Read(in, binary.BigEndian, &size); err == io.EOF {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		line := make([]byte, size, size+10)
		if _, err := io.ReadFull(in, line); err != nil {
			log.Fatal(err)
		}
		line = append(line, '\n')
		text := read(textparse.NewPromParser(line, symbols, false))
		open := read(textparse.NewOpenMetricsParser(append(line, "# EOF\n"...), symbols))
		if err := encoder.Encode([2]reading{text, open}); err != nil {
			log.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}
