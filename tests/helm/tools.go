//go:build tools

// Package helm pins the version of Helm, whose program the tests of the chart run. Nothing imports
// it. It has a module of its own, as its needs differ from those of ../cluster.
package helm

import _ "helm.sh/helm/v3/cmd/helm"
