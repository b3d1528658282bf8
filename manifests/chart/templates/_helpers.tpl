{{/* The chart's name, in labels. */}}
{{- define "kmproxy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The beginning of the names of objects. 40 characters leave room for the suffix. */}}
{{- define "kmproxy.fullname" -}}
{{- $name := include "kmproxy.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "kmproxy.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "kmproxy.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The labels by which pods of this release are found. */}}
{{- define "kmproxy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kmproxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of the pods that serve: those above, and how kmproxy runs. */}}
{{- define "kmproxy.podSelectorLabels" -}}
{{ include "kmproxy.selectorLabels" . }}
app.kubernetes.io/component: {{ eq .Values.mode "daemonset" | ternary "node" "central" }}
{{- end }}

{{/* The labels of every object. */}}
{{- define "kmproxy.labels" -}}
{{ include "kmproxy.selectorLabels" . }}
{{ include "kmproxy.commonLabels" . }}
{{- end }}

{{- define "kmproxy.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ include "kmproxy.chart" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The metadata of an object of the cluster: (list . SUFFIX), the suffix of its name. */}}
{{- define "kmproxy.clusterMetadata" -}}
{{- $ := index . 0 -}}
name: {{ include "kmproxy.fullname" $ }}{{ index . 1 }}
labels:
  {{- include "kmproxy.labels" $ | nindent 2 }}
{{- end }}

{{/* The metadata of an object of the namespace: (list . SUFFIX). */}}
{{- define "kmproxy.metadata" -}}
{{- $ := index . 0 -}}
name: {{ include "kmproxy.fullname" $ }}{{ index . 1 }}
namespace: {{ include "kmproxy.namespace" $ }}
labels:
  {{- include "kmproxy.labels" $ | nindent 2 }}
{{- end }}

{{/* The metadata of an object of the Prometheus Operator: (list . SUFFIX). */}}
{{- define "kmproxy.operatorMetadata" -}}
{{- $ := index . 0 -}}
{{ include "kmproxy.metadata" . }}
  {{- include "kmproxy.operatorLabels" $ | nindent 2 }}
{{- end }}

{{/* The labels by which a Prometheus selects its objects. */}}
{{- define "kmproxy.operatorLabels" -}}
{{- with .Values.prometheus.release }}
release: {{ . }}
{{- end }}
{{- with .Values.prometheus.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kmproxy.serviceAccountName" -}}
{{- default (include "kmproxy.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{/* A ClusterRoleBinding of kmproxy's account: (list . SUFFIX), of the role of that name. */}}
{{- define "kmproxy.binding" -}}
{{- include "kmproxy.bindingOf" (append . (include "kmproxy.serviceAccountName" (index . 0))) }}
{{- end }}

{{/* A ClusterRoleBinding: (list . SUFFIX ACCOUNT), of the role of that name. */}}
{{- define "kmproxy.bindingOf" -}}
{{- $ := index . 0 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  {{- include "kmproxy.clusterMetadata" . | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ include "kmproxy.fullname" $ }}{{ index . 1 }}
subjects:
  - kind: ServiceAccount
    name: {{ index . 2 }}
    namespace: {{ include "kmproxy.namespace" $ }}
{{- end }}

{{- define "kmproxy.image" -}}
{{- with .Values.image -}}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* The host name of the enriched metrics, which is also the name in the certificate. */}}
{{- define "kmproxy.host" -}}
{{ include "kmproxy.fullname" . }}.{{ include "kmproxy.namespace" . }}.svc
{{- end }}

{{/* The role, the account, the token and the binding for kube-state-metrics. */}}
{{- define "kmproxy.upstreamsName" -}}
{{ include "kmproxy.fullname" . }}-upstreams
{{- end }}

{{/* The Secret of the certificate. */}}
{{- define "kmproxy.tlsSecret" -}}
{{- default (printf "%s-tls" (include "kmproxy.fullname" .)) .Values.tls.secretName }}
{{- end }}

{{/* The annotations for the usual scrape jobs: (list . PORT PATH SCRAPED). */}}
{{- define "kmproxy.scrapeAnnotations" -}}
prometheus.io/scrape: {{ index . 3 | quote }}
prometheus.io/scheme: http
prometheus.io/path: {{ index . 2 }}
prometheus.io/port: {{ index . 1 | quote }}
{{- end }}

{{/* The upstreams, as YAML. Empty: there are none, or `config` has them. */}}
{{- define "kmproxy.upstreams" -}}
{{- $all := .Values.upstreams }}
{{- with .Values.kubeStateMetrics }}
{{- $host := printf "%s.%s.svc" .service .namespace }}
{{- if eq .mode "http" }}
{{- $all = append $all (dict "name" "kube-state-metrics" "url" (printf "http://%s:8080/metrics" $host)) }}
{{- else if eq .mode "tls" }}
{{- $all = append $all (dict
  "name" "kube-state-metrics" "url" (printf "https://%s:8443/metrics" $host)
  "authorization" (dict "credentials_file" "/etc/kmproxy/kube-state-metrics/token")
  "tls_config" (dict "insecure_skip_verify" true)) }}
{{- end }}
{{- end }}
{{- with $all }}{{ toYaml . }}{{ end }}
{{- end }}

{{/* The YAML file of --config. Empty: there is none. */}}
{{- define "kmproxy.config" -}}
{{- $config := deepCopy .Values.config }}
{{- with include "kmproxy.upstreams" . }}{{ $_ := set $config "upstreams" (fromYamlArray .) }}{{ end }}
{{- with $config }}{{ toYaml . }}{{ end }}
{{- end }}
