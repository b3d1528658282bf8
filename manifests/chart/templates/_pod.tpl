{{/* The settings, as variables: `kubectl exec ... -- kmproxy check` has the same ones. */}}
{{- define "kmproxy.env" -}}
{{- $central := eq .Values.mode "central" }}
{{- if and .Values.kubelet.tlsPin (include "kmproxy.kubeletTls" .) }}
- name: KMPROXY_KUBELET_TLS_PIN
  value: "true"
{{- end }}
{{- if not (include "kmproxy.direct" .) }}
- name: KMPROXY_KUBE_APISERVER
  value: https://kubernetes.default.svc
{{- end }}
{{- if $central }}
- name: KMPROXY_ALL_NODES
  value: "true"
{{- else }}
- name: KMPROXY_NODE_NAME_OR_IP
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
{{- end }}
{{- if and .Values.label (not (hasKey .Values.config "label")) }}
- name: KMPROXY_LABEL
  value: {{ join "\n" .Values.label | quote }}
{{- end }}
{{- if $central }}
# A replica with older labels is not ready while another replica has newer ones.
- name: KMPROXY_MAX_LABEL_AGE
  value: 3m
- name: KMPROXY_PEERS
  value: {{ include "kmproxy.fullname" . }}-telemetry.{{ include "kmproxy.namespace" . }}.svc:8081
# Only for `kmproxy check`: the node whose metrics it tries.
- name: KMPROXY_TRY_NODE
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}
{{- if include "kmproxy.tls" . }}
- name: KMPROXY_WEB_CONFIG_FILE
  value: /etc/kmproxy/web/web.yml
{{- end }}
{{- if ne .Values.authorization.mode "none" }}
- name: KMPROXY_AUTHORIZATION
  value: {{ .Values.authorization.mode }}
{{- end }}
{{- if .Values.labelSnapshot.enabled }}
- name: KMPROXY_LABEL_SNAPSHOT
  value: /var/lib/kmproxy/labels
{{- end }}
{{- if .Values.discovery.enabled }}
- name: KMPROXY_DISCOVERY
  value: "true"
{{- end }}
{{- if .Values.workload.enabled }}
- name: KMPROXY_WORKLOAD
  value: "true"
{{- end }}
{{- with .Values.workload.podLabel }}
- name: KMPROXY_POD_LABEL
  value: {{ join "\n" . | quote }}
{{- end }}
{{- if include "kmproxy.config" . }}
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
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kmproxy.volumeMounts" -}}
{{- if include "kmproxy.tls" . }}
- name: web-config
  mountPath: /etc/kmproxy/web
  readOnly: true
- name: tls
  mountPath: /etc/kmproxy/tls
  readOnly: true
{{- end }}
{{- if .Values.labelSnapshot.enabled }}
- name: labels
  mountPath: /var/lib/kmproxy
{{- end }}
{{- if include "kmproxy.config" . }}
- name: config
  mountPath: /etc/kmproxy/config
  readOnly: true
{{- end }}
{{- if eq .Values.kubeStateMetrics.mode "tls" }}
- name: upstreams
  mountPath: /etc/kmproxy/kube-state-metrics
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kmproxy.volumes" -}}
{{- if include "kmproxy.tls" . }}
- name: web-config
  configMap:
    name: {{ include "kmproxy.fullname" . }}-web-config
- name: tls
  secret:
    secretName: {{ include "kmproxy.tlsSecret" . }}
{{- end }}
{{- if .Values.labelSnapshot.enabled }}
- name: labels
  emptyDir:
    sizeLimit: {{ .Values.labelSnapshot.sizeLimit }}
{{- end }}
{{- if include "kmproxy.config" . }}
- name: config
  configMap:
    name: {{ include "kmproxy.fullname" . }}-config
{{- end }}
{{- if eq .Values.kubeStateMetrics.mode "tls" }}
- name: upstreams
  secret:
    secretName: {{ include "kmproxy.fullname" . }}-upstreams
    items:
      - key: token
        path: token
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A list under its key, as in `volumes: []`: (list KEY TEXT). */}}
{{- define "kmproxy.listed" -}}
{{- $text := index . 1 | trim -}}
{{ index . 0 }}:{{ if $text }}{{ $text | nindent 2 }}{{ else }} []{{ end }}
{{- end }}

{{/* What all pods have in common: (dict "root" . "part" VALUES "account" NAME "onEveryNode" BOOL
     "host" BOOL "securityContext" VALUES). `part` has tolerations and affinity. */}}
{{- define "kmproxy.podBase" -}}
serviceAccountName: {{ .account }}
enableServiceLinks: false # else the Services' variables KMPROXY_... would look like settings
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .host }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not (kindIs "invalid" .part.tolerations) }}
{{- with .part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- else if .onEveryNode }}
tolerations:
  - operator: Exists
{{- end }}
{{- with .securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What all containers have in common: (dict "root" . "env" TEXT "resources" TEXT "volumeMounts"
     TEXT). */}}
{{- define "kmproxy.containerBase" -}}
image: {{ include "kmproxy.image" .root | quote }}
{{- with .root.Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
terminationMessagePolicy: FallbackToLogsOnError
{{ include "kmproxy.listed" (list "env" .env) }}
resources:
  {{- .resources | nindent 2 }}
{{- with .root.Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{ include "kmproxy.listed" (list "volumeMounts" .volumeMounts) }}
{{- end }}

{{/* The priority class, by default DEFAULT: (list VALUE DEFAULT). */}}
{{- define "kmproxy.priorityClass" -}}
{{- $class := index . 1 }}
{{- if not (kindIs "invalid" (index . 0)) }}{{ $class = index . 0 }}{{ end }}
{{- with $class }}priorityClassName: {{ . }}{{ end }}
{{- end }}

{{/* The probes of every container that has the port `telemetry`. */}}
{{- define "kmproxy.probes" -}}
# A start takes a second. An earlier probe would cause an event of type Warning.
startupProbe:
  httpGet:
    path: /healthz
    port: telemetry
  initialDelaySeconds: 3
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /healthz
    port: telemetry
  timeoutSeconds: 5
readinessProbe:
  httpGet:
    path: /readyz
    port: telemetry
  timeoutSeconds: 5
{{- end }}

{{/* What the pods that serve and the pod of `helm test` have in common. */}}
{{- define "kmproxy.servingPod" -}}
{{- include "kmproxy.podBase" (dict
  "root" . "part" .Values "account" (include "kmproxy.serviceAccountName" .)
  "onEveryNode" (eq .Values.mode "daemonset")
  "host" .Values.hostNetwork "securityContext" .Values.podSecurityContext) }}
{{ include "kmproxy.listed" (list "volumes" (include "kmproxy.volumes" .)) }}
{{- end }}

{{/* What their containers have in common. */}}
{{- define "kmproxy.servingContainer" -}}
{{- include "kmproxy.containerBase" (dict
  "root" . "env" (include "kmproxy.env" .) "volumeMounts" (include "kmproxy.volumeMounts" .)
  "resources" (include "kmproxy.resources" .)) }}
{{- end }}

{{- define "kmproxy.resources" -}}
{{- if not (kindIs "invalid" .Values.resources) }}
{{- toYaml .Values.resources }}
{{- else -}}
# Measured by `make bench`: at most 48 MiB for answers of any size. A CPU limit would only delay
# scrapes, so none is set.
requests:
  cpu: {{ eq .Values.mode "daemonset" | ternary "10m" "100m" }}
  memory: 64Mi
limits:
  memory: 128Mi
{{- end }}
{{- end }}

{{- define "kmproxy.podAnnotations" -}}
{{- if not .Values.prometheus.annotations }}
{{- else if eq .Values.mode "central" }}
# kmproxy's own metrics. The enriched metrics have the node's name in their path.
{{ include "kmproxy.scrapeAnnotations" (list . "8081" "/metrics" "true") }}
{{- else if not (include "kmproxy.tls" .) }}
{{ include "kmproxy.scrapeAnnotations" (list . "8080" "/metrics/cadvisor" "true") }}
{{- end }}
{{- with include "kmproxy.config" . }}
# kmproxy reads its configuration at its start, so a changed one needs new pods.
checksum/config: {{ sha256sum . }}
{{- end }}
{{- with .Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The template of the pods that serve. */}}
{{- define "kmproxy.podTemplate" -}}
{{- $central := eq .Values.mode "central" -}}
metadata:
  labels:
    {{- include "kmproxy.podSelectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "kmproxy.podAnnotations" . | trim }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  {{- include "kmproxy.servingPod" . | nindent 2 }}
  {{- $class := $central | ternary "system-cluster-critical" "system-node-critical" }}
  {{- with include "kmproxy.priorityClass" (list .Values.priorityClassName $class) }}
  {{- . | nindent 2 }}
  {{- end }}
  # A shutdown takes at most 24 s: twice 12 s for the running scrapes. With mode=central the Service
  # has 5 s before that to forget the pod.
  terminationGracePeriodSeconds: {{ $central | ternary 35 30 }}
  {{- if not (kindIs "invalid" .Values.topologySpreadConstraints) }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- else if $central }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "kmproxy.podSelectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  containers:
    - name: kmproxy
      {{- include "kmproxy.servingContainer" . | nindent 6 }}
      ports:
        - name: metrics
          containerPort: 8080
        - name: telemetry
          containerPort: 8081
      {{- include "kmproxy.probes" . | nindent 6 }}
      {{- if $central }}
      lifecycle:
        preStop:
          sleep:
            seconds: 5
      {{- end }}
{{- end }}
