{{/* Parts of the network policies. */}}

{{/* Prometheus, as the peer of a rule. */}}
{{- define "kmproxy.prometheusPeer" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .Values.networkPolicy.prometheusNamespace }}
  podSelector:
    matchLabels:
      {{- toYaml .Values.networkPolicy.prometheusPodLabels | nindent 6 }}
{{- end }}

{{/* The rule for the cluster's DNS. */}}
{{- define "kmproxy.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.networkPolicy.dnsNamespace }}
  ports:
    - port: 53
      protocol: UDP
    - port: 53
{{- end }}
