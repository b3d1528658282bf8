// Command expfmt adds a label to the samples of an exposition as kubelet-meta-proxy does: it parses
// the whole text into metric families with Prometheus' own library, changes these, and encodes them
// as text again.
//
// Standard input begins with a line of JSON, the bytes of the exposition and the label `team` of
// each namespace, and then holds the exposition. For each byte that follows the work is done once,
// and its result, the samples and the bytes of the output, is one line of standard output.
// `kmproxy bench` takes the time between the two.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func main() {
	log.SetFlags(0)
	in := bufio.NewReader(os.Stdin)
	head, err := in.ReadBytes('\n')
	if err != nil {
		log.Fatal(err)
	}
	var given struct {
		Size  int
		Teams map[string]string
	}
	if err := json.Unmarshal(head, &given); err != nil {
		log.Fatal(err)
	}
	text := make([]byte, given.Size)
	if _, err := io.ReadFull(in, text); err != nil {
		log.Fatal(err)
	}
	for {
		if _, err := in.ReadByte(); err != nil {
			return
		}
		samples, size, err := enrich(text, given.Teams)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(samples, size)
	}
}

func enrich(text []byte, teams map[string]string) (samples, size int, err error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return 0, 0, err
	}
	var out bytes.Buffer
	encoder, name := expfmt.NewEncoder(&out, expfmt.NewFormat(expfmt.TypeTextPlain)), "team"
	for _, family := range families {
		for _, metric := range family.Metric {
			samples++
			for _, label := range metric.Label {
				if team, ok := teams[label.GetValue()]; ok && label.GetName() == "namespace" {
					metric.Label = append(metric.Label, &dto.LabelPair{Name: &name, Value: &team})
					break
				}
			}
		}
		if err := encoder.Encode(family); err != nil {
			return 0, 0, err
		}
	}
	return samples, out.Len(), nil
}
