{{/*
What follows from the values for `kmproxy logs`. Templates of logs/ are rendered with logs.enabled.
Those of events/ have the values of `events` in place of those of `logs`, with the source `none`.
*/}}

{{/* Whether log files are read, through the kubelet of each node. "true" or empty. */}}
{{- define "kmproxy.logFiles" -}}
{{ if eq .Values.logs.source "files" }}true{{ end }}
{{- end }}

{{/* Whether events are sent, and no logs. "true" or empty. */}}
{{- define "kmproxy.logEvents" -}}
{{ if eq .Values.logs.source "none" }}true{{ end }}
{{- end }}

{{/* The Lease of the pods that send events. */}}
{{- define "kmproxy.eventsLease" -}}
{{ include "kmproxy.fullname" . }}-logs-events
{{- end }}

{{/* The end of the names of objects. With another source they have other rights, so other names. */}}
{{- define "kmproxy.logsSuffix" -}}
{{ get (dict "files" "-logs" "api" "-logs-api" "none" "-logs-events") .Values.logs.source }}
{{- end }}

{{- define "kmproxy.logsName" -}}
{{ include "kmproxy.fullname" . }}{{ include "kmproxy.logsSuffix" . }}
{{- end }}

{{- define "kmproxy.logsAccount" -}}
{{- default (include "kmproxy.logsName" .) .Values.logs.serviceAccount.name }}
{{- end }}

{{/* The labels by which pods of `kmproxy logs` are found, and no others. */}}
{{- define "kmproxy.logsSelectorLabels" -}}
app.kubernetes.io/name: {{ printf "%s%s" (include "kmproxy.name" . | trunc 51) (include "kmproxy.logsSuffix" .) }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kmproxy.logsLabels" -}}
{{ include "kmproxy.logsSelectorLabels" . }}
{{ include "kmproxy.commonLabels" . }}
{{- end }}

{{/* The metadata of an object of the namespace. */}}
{{- define "kmproxy.logsMetadata" -}}
name: {{ include "kmproxy.logsName" . }}
namespace: {{ include "kmproxy.namespace" . }}
labels:
  {{- include "kmproxy.logsLabels" . | nindent 2 }}
{{- end }}

{{/* The rules of the role. */}}
{{- define "kmproxy.logsRules" -}}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- if include "kmproxy.logEvents" . }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, watch]
{{- else if not (include "kmproxy.logFiles" .) }}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- else if not (include "kmproxy.identified" .Values.logs.config) }}
- apiGroups: [""]
  resources: [nodes/log, nodes/pods]
  verbs: [get]
{{- end }}
{{- end }}

{{/* The settings, as variables: `kubectl exec ... -- kmproxy check --logs` has the same ones. */}}
{{- define "kmproxy.logsEnv" -}}
- name: KMPROXY_LOKI_URL
  value: {{ .Values.logs.lokiUrl | quote }}
{{- if include "kmproxy.logFiles" . }}
{{- if .Values.kubelet.tlsPin }}
- name: KMPROXY_KUBELET_TLS_PIN
  value: "true"
{{- end }}
- name: KMPROXY_NODE_NAME_OR_IP
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
{{- else if include "kmproxy.logEvents" . }}
- name: KMPROXY_SOURCE
  value: none
- name: KMPROXY_EVENTS
  value: "true"
{{- if ne (include "kmproxy.eventsLease" .) "kmproxy-logs-events" }}
- name: KMPROXY_EVENTS_LEASE
  value: {{ include "kmproxy.eventsLease" . }}
{{- end }}
{{- else }}
- name: KMPROXY_SOURCE
  value: api
# The number in the pod's name, from Kubernetes 1.28 on.
- name: POD_INDEX
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
- name: KMPROXY_SHARD
  value: $(POD_INDEX)/{{ .Values.logs.replicaCount }}
{{- end }}
{{- if and .Values.label (not (hasKey .Values.logs.config "label")) }}
- name: KMPROXY_LABEL
  value: {{ join "\n" .Values.label | quote }}
{{- end }}
{{- if not (include "kmproxy.logEvents" .) }}
- name: KMPROXY_POSITIONS
  value: /var/lib/kmproxy/positions.json
{{- end }}
{{- if .Values.logs.config }}
- name: KMPROXY_CONFIG
  value: /etc/kmproxy/config/config.yml
{{- end }}
{{- with .Values.log.level }}
- name: KMPROXY_LOG_LEVEL
  value: {{ . }}
{{- end }}
{{- with .Values.log.format }}
- name: KMPROXY_LOG_FORMAT
  value: {{ . }}
{{- end }}
{{- with .Values.logs.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kmproxy.logsVolumeMounts" -}}
{{- if not (include "kmproxy.logEvents" .) }}
- name: positions
  mountPath: /var/lib/kmproxy
{{- end }}
{{- if .Values.logs.config }}
- name: config
  mountPath: /etc/kmproxy/config
  readOnly: true
{{- end }}
{{- with .Values.logs.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The volumes: (list . CLAIMED), whether a claim brings that of the positions. */}}
{{- define "kmproxy.logsVolumes" -}}
{{- with index . 0 }}
{{- if not (or (index $ 1) (include "kmproxy.logEvents" .)) }}
# It survives a restart of the container, but not the pod. A new pod sends again the lines of the
# last --max-age that are still there.
- name: positions
  emptyDir:
    sizeLimit: 32Mi
{{- end }}
{{- if .Values.logs.config }}
- name: config
  configMap:
    name: {{ include "kmproxy.logsName" . }}-config
{{- end }}
{{- with .Values.logs.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the positions are on volumes that stay when a pod is replaced. "true" or empty. */}}
{{- define "kmproxy.logsClaimed" -}}
{{ if and (eq .Values.logs.source "api") .Values.logs.persistence.enabled }}true{{ end }}
{{- end }}

{{/* The security context of pods, as YAML. The group of a claimed volume is that of the process. */}}
{{- define "kmproxy.logsSecurityContext" -}}
{{- $own := dict }}
{{- if and (include "kmproxy.logsClaimed" .) .Values.podSecurityContext.runAsGroup }}
{{- $own = dict "fsGroup" .Values.podSecurityContext.runAsGroup "fsGroupChangePolicy" "OnRootMismatch" }}
{{- end }}
{{- toYaml (mergeOverwrite $own .Values.podSecurityContext) }}
{{- end }}

{{/* What the pods of `kmproxy logs` and that of `helm test` have in common: (list . CLAIMED). */}}
{{- define "kmproxy.logsPod" -}}
{{- $claimed := index . 1 }}
{{- with index . 0 }}
{{- $files := include "kmproxy.logFiles" . }}
{{- include "kmproxy.podBase" (dict
  "root" . "part" .Values.logs "account" (include "kmproxy.logsAccount" .)
  "onEveryNode" $files
  "host" (and $files .Values.hostNetwork)
  "securityContext" (include "kmproxy.logsSecurityContext" . | fromYaml)) }}
{{- with include "kmproxy.logsVolumes" (list . $claimed) | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What their containers have in common. */}}
{{- define "kmproxy.logsContainer" -}}
{{- include "kmproxy.containerBase" (dict
  "root" . "env" (include "kmproxy.logsEnv" .)
  "volumeMounts" (include "kmproxy.logsVolumeMounts" .)
  "resources" (include "kmproxy.logsResources" .)) }}
{{- end }}

{{- define "kmproxy.logsResources" -}}
{{- if not (kindIs "invalid" .Values.logs.resources) }}
{{- toYaml .Values.logs.resources }}
{{- else if include "kmproxy.logFiles" . -}}
# Measured by `python -m tests.support.log_figures` (docs/logs.md): 150 idle containers take 1.8% of
# a core and 48 MiB. 65,000 lines a second take a whole core and 69 MiB. While the endpoint is away,
# unsent lines take 16 MiB at most.
requests:
  cpu: 50m
  memory: 96Mi
limits:
  memory: 192Mi
{{- else if include "kmproxy.logEvents" . -}}
# 100,000 events at the first start took 70 MiB (docs/logs.md).
requests:
  cpu: 10m
  memory: 64Mi
limits:
  memory: 192Mi
{{- else -}}
# kmproxy follows 200 logs at most. Each has a connection, whose buffers fill up while the endpoint
# is away.
requests:
  cpu: 50m
  memory: 128Mi
limits:
  memory: 384Mi
{{- end }}
{{- end }}

{{- define "kmproxy.logsAnnotations" -}}
{{- if .Values.prometheus.annotations }}
# kmproxy's own metrics.
{{ include "kmproxy.scrapeAnnotations" (list . "8081" "/metrics" "true") }}
{{- end }}
{{- with .Values.logs.config }}
# kmproxy reads its configuration at its start, so a changed one needs new pods.
checksum/config: {{ toYaml . | sha256sum }}
{{- end }}
{{- with .Values.logs.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The template of the pods. */}}
{{- define "kmproxy.logsPodTemplate" -}}
metadata:
  labels:
    {{- include "kmproxy.logsSelectorLabels" . | nindent 4 }}
    {{- with .Values.logs.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "kmproxy.logsAnnotations" . | trim }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  {{- include "kmproxy.logsPod" (list . (include "kmproxy.logsClaimed" .)) | nindent 2 }}
  {{- $class := eq .Values.logs.source "files" | ternary "system-node-critical" "" }}
  {{- with include "kmproxy.priorityClass" (list .Values.logs.priorityClassName $class) }}
  {{- . | nindent 2 }}
  {{- end }}
  # At the end kmproxy sends the lines in memory for at most 10 s, and writes its positions.
  terminationGracePeriodSeconds: 30
  {{- if not (kindIs "invalid" .Values.logs.topologySpreadConstraints) }}
  {{- with .Values.logs.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- else if include "kmproxy.logEvents" . }}
  # The pods on different nodes, if there are as many.
  topologySpreadConstraints:
    - topologyKey: kubernetes.io/hostname
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "kmproxy.logsSelectorLabels" . | nindent 10 }}
  {{- end }}
  containers:
    - name: kmproxy
      args: [logs]
      {{- include "kmproxy.logsContainer" . | nindent 6 }}
      ports:
        - name: telemetry
          containerPort: 8081
      {{- include "kmproxy.probes" . | nindent 6 }}
{{- end }}

{{/* The pods that send events, of which one works and the others take over. */}}
{{- define "kmproxy.eventsDeployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "kmproxy.logsMetadata" . | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "kmproxy.logsSelectorLabels" . | nindent 6 }}
  replicas: {{ .Values.logs.replicaCount }}
  {{- with .Values.logs.updateStrategy }}
  strategy:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  template:
    {{- include "kmproxy.logsPodTemplate" . | nindent 4 }}
{{- end }}
