//go:build tools

// Package cluster pins the versions of the programs that the tests of this folder run:
// a Kubernetes API server, etcd, Prometheus and promtool. Nothing imports it.
package cluster

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
)
