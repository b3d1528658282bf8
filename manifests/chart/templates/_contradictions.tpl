{{/*
Ends the rendering with one line if values contradict one another.
*/}}
{{- define "kmproxy.contradictions" -}}
{{- $v := .Values }}
{{- $central := eq $v.mode "central" }}
{{- if and (not $central) (eq $v.kubelet.access "proxy") }}
{{- fail "kubelet.access=proxy is for mode=central alone: on every node there would be a token that can run commands in every pod" }}
{{- end }}
{{- if and (eq $v.kubelet.access "proxy") (hasKey $v.config "kubelet") }}
{{- fail "config.kubelet makes no sense beside kubelet.access=proxy: the API server connects to the kubelets" }}
{{- end }}
{{- if and (eq $v.kubelet.access "proxy") (hasKey $v.config "kubelet-scheme") }}
{{- fail "config.kubelet-scheme makes no sense beside kubelet.access=proxy: the API server connects to the kubelets" }}
{{- end }}
{{- $insecure := or (eq (get $v.config "kubelet-insecure-tls" | toString) "true") (dig "kubelet" "tls_config" "insecure_skip_verify" false $v.config) }}
{{- if and $v.kubelet.tlsPin $insecure (include "kmproxy.kubeletTls" .) }}
{{- fail "config accepts every certificate of a kubelet: set kubelet.tlsPin=false, too, or better leave that out of config" }}
{{- end }}
{{- if and (ne $v.authorization.mode "none") (eq $v.tls.mode "none") }}
{{- fail (printf "authorization.mode=%s needs TLS, as scrapers send their tokens: set tls.mode" $v.authorization.mode) }}
{{- end }}
{{- if and (eq $v.tls.mode "none") $v.tls.webConfig }}
{{- fail "tls.webConfig needs TLS, as scrapers send their passwords: set tls.mode" }}
{{- end }}
{{- if and (eq $v.tls.mode "existingSecret") (not $v.tls.secretName) }}
{{- fail "tls.mode=existingSecret needs tls.secretName: the Secret with tls.crt and tls.key" }}
{{- end }}
{{- $managed := dict
  "all-nodes" "mode" "node-name-or-ip" "mode" "node-ip" "mode" "peers" "mode" "max-label-age" "mode"
  "kube-apiserver" "kubelet.access" "kubelet-tls-pin" "kubelet.tlsPin"
  "kubeconfig" "serviceAccount" "service-account-dir" "serviceAccount"
  "workload" "workload.enabled" "pod-label" "workload.podLabel"
  "discovery" "discovery.enabled" "label-snapshot" "labelSnapshot.enabled"
  "authorization" "authorization.mode"
  "web-config-file" "tls" "web.config.file" "tls" "metrics-cert-path" "tls"
  "metrics-cert-name" "tls" "metrics-cert-key" "tls" "metrics-secure" "tls"
  "listen" "service.port" "metrics-port" "service.port" "telemetry-listen" "service"
  "health-probe-bind-address" "service"
  "log-level" "log.level" "log-format" "log.format" }}
{{- include "kmproxy.managed" (list "config" $v.config $managed) }}
{{- if and $v.upstreams (hasKey $v.config "upstreams") }}
{{- fail "upstreams and config.upstreams both list upstreams: use one of them" }}
{{- end }}
{{- if ne $v.kubeStateMetrics.mode "none" }}
{{- if hasKey $v.config "upstreams" }}
{{- fail "kubeStateMetrics and config.upstreams both list upstreams: move those of config to upstreams" }}
{{- end }}
{{- range $v.upstreams }}
{{- if eq (get . "name") "kube-state-metrics" }}
{{- fail "kubeStateMetrics and upstreams both name kube-state-metrics: use one of them" }}
{{- end }}
{{- end }}
{{- end }}
{{- with $v.prometheus }}
{{- range $key := list "podMonitor" "serviceMonitor" }}
{{- if and $central (get (get $v.prometheus $key) "enabled") }}
{{- fail (printf "prometheus.%s is for mode=daemonset: with mode=central take prometheus.scrapeConfig" $key) }}
{{- end }}
{{- end }}
{{- if and .podMonitor.enabled .serviceMonitor.enabled }}
{{- fail "prometheus.podMonitor and prometheus.serviceMonitor would scrape every node twice: use one of them" }}
{{- end }}
{{- if and (not $central) .scrapeConfig.enabled }}
{{- fail "prometheus.scrapeConfig is for mode=central: with mode=daemonset take prometheus.podMonitor" }}
{{- end }}
{{- if and .upstreams.enabled (not (include "kmproxy.upstreams" $)) (not (get $v.config "upstreams")) }}
{{- fail "prometheus.upstreams.enabled has nothing to scrape: list exporters in upstreams" }}
{{- end }}
{{- if and .logs.enabled (not (or $v.logs.enabled $v.events.enabled)) }}
{{- fail "prometheus.logs.enabled has nothing to scrape: set logs.enabled or events.enabled" }}
{{- end }}
{{- end }}
{{- if and (eq $v.authorization.mode "tenant") (include "kmproxy.monitored" .) }}
{{- fail "authorization.mode=tenant has a token for each tenant, and monitors of this chart have one: let each tenant have a monitor of its own" }}
{{- end }}
{{- if and (not $v.serviceAccount.create) (not $v.serviceAccount.name) }}
{{- fail "serviceAccount.create=false needs serviceAccount.name: the roles are not for the account that every pod has" }}
{{- end }}
{{- if not (include "kmproxy.metrics" .) }}
{{- include "kmproxy.metricsContradictions" . }}
{{- end }}
{{- if $v.logs.enabled }}
{{- include "kmproxy.logsContradictions" . }}
{{- end }}
{{- if $v.events.enabled }}
{{- include "kmproxy.eventsContradictions" . }}
{{- end }}
{{- end }}

{{/* Keys of a YAML file that the chart sets itself: (list VALUE CONFIG MANAGED). */}}
{{- define "kmproxy.managed" -}}
{{- $managed := index . 2 }}
{{- range $key, $_ := index . 1 }}
{{- if hasKey $managed $key }}
{{- fail (printf "%s.%s is what the chart sets itself: set %s instead" (index $ 0) $key (get $managed $key)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values about metrics beside mode=none. */}}
{{- define "kmproxy.metricsContradictions" -}}
{{- $v := .Values }}
{{- if not (or $v.logs.enabled $v.events.enabled) }}
{{- fail "mode=none runs nothing without logs.enabled or events.enabled: set one of them" }}
{{- end }}
{{- $given := dict
  "upstreams" $v.upstreams "config" $v.config "kubeStateMetrics.mode" (ne $v.kubeStateMetrics.mode "none")
  "tls.mode" (ne $v.tls.mode "none") "authorization.mode" (ne $v.authorization.mode "none")
  "discovery.enabled" $v.discovery.enabled "labelSnapshot.enabled" $v.labelSnapshot.enabled
  "workload.enabled" $v.workload.enabled "workload.podLabel" $v.workload.podLabel
  "prometheus.podMonitor.enabled" $v.prometheus.podMonitor.enabled
  "prometheus.serviceMonitor.enabled" $v.prometheus.serviceMonitor.enabled
  "prometheus.upstreams.enabled" $v.prometheus.upstreams.enabled }}
{{- range $value, $set := $given }}
{{- if $set }}
{{- fail (printf "%s is about metrics, which mode=none does not serve: leave it out" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values of `logs`. */}}
{{- define "kmproxy.logsContradictions" -}}
{{- $v := .Values }}
{{- $files := include "kmproxy.logFiles" . }}
{{- include "kmproxy.endpoint" (list "logs" $v.logs $v.networkPolicy) }}
{{- if and $files (eq $v.kubelet.access "proxy") }}
{{- fail "logs.source=files asks the kubelets themselves, which kubelet.access=proxy does not: set logs.source=api" }}
{{- end }}
{{- if and $files $v.hostNetwork (include "kmproxy.metrics" .) }}
{{- fail "hostNetwork with logs.source=files gives two pods of a node the same ports: set logs.source=api" }}
{{- end }}
{{- if and $files (eq (get $v.logs.config "kubelet-scheme" | toString) "http") }}
{{- fail "logs.config.kubelet-scheme=http: the read-only port of a kubelet serves no logs: leave it out" }}
{{- end }}
{{- if not $files }}
{{- range list "kubelet" "kubelet-scheme" "kubelet-insecure-tls" "kubelet-ca-file" "kubelet-server-name" "node-port" }}
{{- if hasKey $v.logs.config . }}
{{- fail (printf "logs.config.%s makes no sense beside logs.source=api: the API server connects to the kubelets" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- $insecure := or (eq (get $v.logs.config "kubelet-insecure-tls" | toString) "true") (dig "kubelet" "tls_config" "insecure_skip_verify" false $v.logs.config) }}
{{- if and $files $v.kubelet.tlsPin $insecure }}
{{- fail "logs.config accepts every certificate of a kubelet: set kubelet.tlsPin=false, too, or better leave that out of logs.config" }}
{{- end }}
{{- include "kmproxy.managed" (list "logs.config" $v.logs.config (dict
  "loki-url" "logs.lokiUrl" "source" "logs.source" "shard" "logs.replicaCount"
  "positions" "logs.persistence" "node-name-or-ip" "logs.source" "node-ip" "logs.source"
  "kube-apiserver" "logs.source" "kubelet-tls-pin" "kubelet.tlsPin"
  "kubeconfig" "logs.serviceAccount" "service-account-dir" "logs.serviceAccount"
  "telemetry-listen" "logs" "health-probe-bind-address" "logs"
  "log-level" "log.level" "log-format" "log.format")) }}
{{- end }}

{{/* The endpoint and the account of `logs` or `events`: (list NAME VALUES NETWORKPOLICY). */}}
{{- define "kmproxy.endpoint" -}}
{{- $name := index . 0 }}
{{- $policy := index . 2 }}
{{- with index . 1 }}
{{- if not .lokiUrl }}
{{- fail (printf "%s.enabled needs %s.lokiUrl: a push endpoint, such as http://HOST:PORT/loki/api/v1/push" $name $name) }}
{{- end }}
{{- if and $policy.enabled (not $policy.logsEgress) (not (regexMatch "^https://[^/:]+(:(443|6443))?(/|$)" .lokiUrl)) }}
{{- fail (printf "networkPolicy.enabled lets no line reach %s.lokiUrl: add a rule for the pods of the endpoint to networkPolicy.logsEgress" $name) }}
{{- end }}
{{- if and (not .serviceAccount.create) (not .serviceAccount.name) }}
{{- fail (printf "%s.serviceAccount.create=false needs %s.serviceAccount.name: the role is not for the account that every pod has" $name $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values of `events`. */}}
{{- define "kmproxy.eventsContradictions" -}}
{{- $v := .Values }}
{{- include "kmproxy.endpoint" (list "events" $v.events $v.networkPolicy) }}
{{- include "kmproxy.managed" (list "events.config" $v.events.config (dict
  "loki-url" "events.lokiUrl" "events" "events.enabled" "source" "logs.source"
  "events-lease" "fullnameOverride" "shard" "events.replicaCount" "positions" "events"
  "node-name-or-ip" "logs.source" "node-ip" "logs.source" "kube-apiserver" "events"
  "kubeconfig" "events.serviceAccount" "service-account-dir" "events.serviceAccount"
  "telemetry-listen" "events" "health-probe-bind-address" "events"
  "log-level" "log.level" "log-format" "log.format")) }}
{{- range list "kubelet" "kubelet-scheme" "kubelet-insecure-tls" "kubelet-ca-file" "kubelet-server-name" "kubelet-tls-pin" "node-port" }}
{{- if hasKey $v.events.config . }}
{{- fail (printf "events.config.%s makes no sense: events come from the API server" .) }}
{{- end }}
{{- end }}
{{- end }}
