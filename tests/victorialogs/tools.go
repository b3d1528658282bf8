//go:build tools

// Package victorialogs pins the version of VictoriaLogs, which tests of the log shipper push to.
// Nothing imports it. It has a module of its own, as its needs differ from those of ../cluster.
package victorialogs

import _ "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"
