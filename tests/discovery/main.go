// Prometheus' own Kubernetes discovery as a program, for a Prometheus that is built without it.
//
// It reads a prometheus.yml, runs the kubernetes_sd_configs of each job, and keeps what they find
// in OUT/JOB.json, a file of file_sd_configs with one group per target.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/go-kit/log"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"gopkg.in/yaml.v2"
)

type job struct {
	Name    string                 `yaml:"job_name"`
	Configs []*kubernetes.SDConfig `yaml:"kubernetes_sd_configs"`
}

type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(config, out string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var document struct {
		Jobs []job `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	logger := log.NewLogfmtLogger(log.NewSyncWriter(os.Stderr))
	manager := discovery.NewManager(ctx, logger)
	jobs := map[string]discovery.Configs{}
	for _, each := range document.Jobs {
		for _, one := range each.Configs {
			jobs[each.Name] = append(jobs[each.Name], one)
		}
	}
	if err := manager.ApplyConfig(jobs); err != nil {
		return err
	}
	go func() { _ = manager.Run() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case found := <-manager.SyncCh():
			for name := range jobs {
				if err := write(filepath.Join(out, name+".json"), found[name]); err != nil {
					return err
				}
			}
		}
	}
}

func write(path string, found []*targetgroup.Group) error {
	groups := []group{}
	for _, each := range found {
		for _, target := range each.Targets {
			labels := map[string]string{}
			for _, set := range []model.LabelSet{each.Labels, target} {
				for name, value := range set {
					labels[string(name)] = string(value)
				}
			}
			address := labels[model.AddressLabel]
			delete(labels, model.AddressLabel)
			groups = append(groups, group{Targets: []string{address}, Labels: labels})
		}
	}
	text, err := json.MarshalIndent(groups, "", " ")
	if err != nil {
		return err
	}
	fresh := path + ".new"
	if err := os.WriteFile(fresh, text, 0o644); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
