{{/*
What follows from the values. Each of these is "true" or empty.
*/}}

{{/* Whether metrics are served. */}}
{{- define "kmproxy.metrics" -}}
{{ if ne .Values.mode "none" }}true{{ end }}
{{- end }}

{{- define "kmproxy.tls" -}}
{{ if ne .Values.tls.mode "none" }}true{{ end }}
{{- end }}

{{/* Whether kubelets are asked themselves. */}}
{{- define "kmproxy.direct" -}}
{{ if eq .Values.kubelet.access "direct" }}true{{ end }}
{{- end }}

{{/* Whether kubelets are asked over TLS, so that a certificate can be pinned. */}}
{{- define "kmproxy.kubeletTls" -}}
{{ if and (include "kmproxy.direct" .) (ne (get .Values.config "kubelet-scheme" | toString) "http") }}true{{ end }}
{{- end }}

{{/* Whether the section `kubelet` of a YAML file has a credential or a client certificate. */}}
{{- define "kmproxy.identified" -}}
{{- $access := default dict (get . "kubelet") }}
{{- $found := "" }}
{{- range list "bearer_token" "bearer_token_file" "authorization" "basic_auth" "oauth2" }}
{{- if hasKey $access . }}{{ $found = "true" }}{{ end }}
{{- end }}
{{- range list "cert" "cert_pem" "cert_file" }}
{{- if hasKey (default dict (get $access "tls_config")) . }}{{ $found = "true" }}{{ end }}
{{- end }}
{{- $found }}
{{- end }}

{{/* Whether kubelets see kmproxy's own account, so that this needs rights to them: not over plain
     http, and not where the section `kubelet` identifies kmproxy otherwise. */}}
{{- define "kmproxy.asItself" -}}
{{- if and (include "kmproxy.kubeletTls" .) (not (include "kmproxy.identified" .Values.config)) }}true{{ end }}
{{- end }}

{{/* Whether the kubelet's list of pods is needed, for labels. */}}
{{- define "kmproxy.podLabels" -}}
{{ if or .Values.workload.enabled .Values.workload.podLabel }}true{{ end }}
{{- end }}

{{/* Whether an object of the Prometheus Operator scrapes enriched metrics. */}}
{{- define "kmproxy.monitored" -}}
{{- with .Values.prometheus }}
{{- if or .podMonitor.enabled .serviceMonitor.enabled .scrapeConfig.enabled .upstreams.enabled }}true{{ end }}
{{- end }}
{{- end }}

{{/* The rules that reach the kubelets. Empty: none are needed. */}}
{{- define "kmproxy.kubeletRules" -}}
{{- if not (include "kmproxy.direct" .) }}
# nodes/proxy is not read-only: an account with this right can run commands in every pod of a node.
- apiGroups: [""]
  resources: [nodes/proxy]
  verbs: [get]
{{- else if include "kmproxy.asItself" . }}
- apiGroups: [""]
  resources: [nodes/metrics]
  verbs: [get]
{{- end }}
{{- if eq .Values.mode "central" }}
- apiGroups: [""]
  resources: [nodes]
  verbs: [get]
{{- end }}
{{- end }}

{{/* The rules that find targets. Empty: none are needed. */}}
{{- define "kmproxy.discoveryRules" -}}
{{- if .Values.discovery.enabled }}
{{- if include "kmproxy.asItself" . }}
- apiGroups: [""]
  resources: [nodes/pods]
  verbs: [get]
{{- end }}
{{- if eq .Values.mode "central" }}
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
{{- end }}
{{- end }}
{{- end }}

{{/* The ends of the names of roles. A role with other rights has another name. */}}
{{- define "kmproxy.kubeletRole" -}}
{{- if eq .Values.mode "daemonset" }}-kubelets-daemonset
{{- else if include "kmproxy.direct" . }}-kubelets-deployment-direct
{{- else }}-kubelets-deployment
{{- end }}
{{- end }}
{{- define "kmproxy.discoveryRole" -}}
{{ eq .Values.mode "daemonset" | ternary "-pods" "-pods-of-all-nodes" }}
{{- end }}
