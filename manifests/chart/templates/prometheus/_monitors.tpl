{{/* How a monitor reaches kmproxy: over TLS, and with a token, where the values say so.
     (list . SCHEME), the scheme as this kind of object spells it. */}}
{{- define "kmproxy.monitorAccess" -}}
{{- $ := index . 0 -}}
{{- if include "kmproxy.tls" $ }}
scheme: {{ index . 1 }}
{{ include "kmproxy.monitorTls" $ }}
{{- end }}
{{- end }}

{{- define "kmproxy.monitorTls" -}}
{{- if include "kmproxy.tls" . -}}
tlsConfig:
  serverName: {{ include "kmproxy.host" . }}
  ca:
    secret:
      name: {{ include "kmproxy.tlsSecret" . }}
      key: ca.crt
{{- if eq .Values.authorization.mode "kubernetes" }}
authorization:
  credentials:
    name: {{ include "kmproxy.fullname" . }}-scraper
    key: token
{{- end }}
{{- end }}
{{- end }}

{{/* The samples' own labels and times are kept. */}}
{{- define "kmproxy.honest" -}}
honorLabels: true
honorTimestamps: true
trackTimestampsStaleness: true
{{- end }}

{{/* The endpoint of kmproxy's own metrics. */}}
{{- define "kmproxy.telemetryEndpoint" -}}
- port: telemetry
  path: /metrics
  relabelings:
    - targetLabel: job
      replacement: kmproxy-telemetry
    - sourceLabels: [__meta_kubernetes_pod_node_name]
      targetLabel: node
{{- end }}

{{/* A file of rules, with the links of its alerts: (list . PATH). */}}
{{- define "kmproxy.rules" -}}
{{- $ := index . 0 -}}
{{- $text := $.Files.Get (index . 1) }}
{{- with $.Values.prometheus.rules.runbooks }}
{{- $text = regexReplaceAll "runbook_url: [^#]*#" $text (printf "runbook_url: %s#" (replace "$" "$$" .)) }}
{{- end }}
{{- $text }}
{{- end }}
