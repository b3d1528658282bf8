{{/*
The objects of `kmproxy logs` that do not depend on how its pods run. `logs/` and `events/` have the
same ones; "kmproxy.forEvents" gives them the values of `events` in place of those of `logs`.
*/}}

{{/* An object with the values of `events`, in place of those of `logs`: (list . TEMPLATE). */}}
{{- define "kmproxy.forEvents" -}}
{{- with index . 0 }}
{{- $logs := set (deepCopy .Values.events) "source" "none" }}
{{- $values := set (omit .Values "logs") "logs" (set $logs "beside" .Values.logs.enabled) }}
{{- include (index $ 1) (set (omit . "Values") "Values" $values) }}
{{- end }}
{{- end }}

{{- define "kmproxy.logsAccountObject" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "kmproxy.logsAccount" . }}
  namespace: {{ include "kmproxy.namespace" . }}
  labels:
    {{- include "kmproxy.logsLabels" . | nindent 4 }}
  {{- with .Values.logs.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "kmproxy.logsRoleObject" -}}
# The labels of namespaces, the pods, and their logs. nodes/log, for logs.source=files, reads the
# whole /var/log of a node. pods/log, for logs.source=api, reads only logs, of every pod of the
# cluster.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ include "kmproxy.logsName" . }}
  labels:
    {{- include "kmproxy.logsLabels" . | nindent 4 }}
rules:
  {{- include "kmproxy.logsRules" . | nindent 2 }}
{{- end }}

{{- define "kmproxy.logsBindingObject" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "kmproxy.logsName" . }}
  labels:
    {{- include "kmproxy.logsLabels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ include "kmproxy.logsName" . }}
subjects:
  - kind: ServiceAccount
    name: {{ include "kmproxy.logsAccount" . }}
    namespace: {{ include "kmproxy.namespace" . }}
{{- end }}

{{- define "kmproxy.logsConfigObject" -}}
{{- with .Values.logs.config -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "kmproxy.logsName" $ }}-config
  namespace: {{ include "kmproxy.namespace" $ }}
  labels:
    {{- include "kmproxy.logsLabels" $ | nindent 4 }}
data:
  config.yml: |
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "kmproxy.logsPolicyObject" -}}
{{- with .Values.networkPolicy -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "kmproxy.logsMetadata" $ | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "kmproxy.logsSelectorLabels" $ | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    # The probes of a node's own kubelet always pass.
    - from:
        {{- include "kmproxy.prometheusPeer" $ | nindent 8 }}
      ports:
        - port: telemetry
  egress:
    # The API server and the kubelets are not pods, so a rule can only name their ports.
    - ports:
        - port: 443
        - port: 6443
        {{- if include "kmproxy.logFiles" $ }}
        - port: {{ default 10250 (get $.Values.logs.config "node-port") }}
        {{- end }}
    {{- include "kmproxy.dnsEgress" $ | nindent 4 }}
    {{- with .logsEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{- define "kmproxy.logsBudgetObject" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "kmproxy.logsMetadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .Values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "kmproxy.logsSelectorLabels" . | nindent 6 }}
{{- end }}

{{- define "kmproxy.logsMonitorObject" -}}
# The own metrics of `kmproxy logs`.
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  {{- include "kmproxy.logsMetadata" . | nindent 2 }}
    {{- include "kmproxy.operatorLabels" . | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- include "kmproxy.logsSelectorLabels" . | nindent 6 }}
  podMetricsEndpoints:
    {{- include "kmproxy.telemetryEndpoint" . | nindent 4 }}
{{- end }}

{{- define "kmproxy.logsCheckObject" -}}
# `helm test`: the preflight of `kmproxy logs`, with its settings and rights.
apiVersion: v1
kind: Pod
metadata:
  {{- include "kmproxy.metadata" (list . (printf "%s-check" (include "kmproxy.logsSuffix" .))) | nindent 2 }}
    app.kubernetes.io/component: check
    apps.kubernetes.io/pod-index: "0"
  annotations:
    helm.sh/hook: test
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
spec:
  {{- include "kmproxy.logsPod" (list . "") | nindent 2 }}
  restartPolicy: Never
  containers:
    - name: check
      args: [check, --logs]
      {{- include "kmproxy.logsContainer" . | nindent 6 }}
{{- end }}
