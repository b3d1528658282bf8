//go:build tools

// Package workflows pins the version of actionlint, which reads the workflows of .github. Nothing
// imports it.
package workflows

import _ "github.com/rhysd/actionlint/cmd/actionlint"
