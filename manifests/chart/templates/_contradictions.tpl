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
{{- range $key, $_ := $v.config }}
{{- if hasKey $managed $key }}
{{- fail (printf "config.%s is what the chart sets itself: set %s instead" $key (get $managed $key)) }}
{{- end }}
{{- end }}
{{- if and $v.upstreams (hasKey $v.config "upstreams") }}
{{- fail "upstreams and config.upstreams both list upstreams: use one of them" }}
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
{{- if and .upstreams.enabled (not $v.upstreams) (not (get $v.config "upstreams")) }}
{{- fail "prometheus.upstreams.enabled has nothing to scrape: list exporters in upstreams" }}
{{- end }}
{{- end }}
{{- if and (eq $v.authorization.mode "tenant") (include "kmproxy.monitored" .) }}
{{- fail "authorization.mode=tenant has a token for each tenant, and monitors of this chart have one: let each tenant have a monitor of its own" }}
{{- end }}
{{- if and (not $v.serviceAccount.create) (not $v.serviceAccount.name) }}
{{- fail "serviceAccount.create=false needs serviceAccount.name: the roles are not for the account that every pod has" }}
{{- end }}
{{- end }}
