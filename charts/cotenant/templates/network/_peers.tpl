{{/* Peers and ports that several policies name. Call those that take one with $. */}}

{{- define "cotenant.gateways" -}}
podSelector:
  matchLabels: {{- include "cotenant.selector" (dict "root" . "component" "gateway") | nindent 4 }}
{{- end }}

{{- define "cotenant.operators" -}}
podSelector:
  matchLabels: {{- include "cotenant.selector" (dict "root" . "component" "operator") | nindent 4 }}
{{- end }}

{{/* Every pod of a RayCluster of this namespace: heads and workers. */}}
{{- define "cotenant.poolPods" -}}
matchExpressions:
- {key: ray.io/cluster, operator: Exists}
{{- end }}

{{/* Pods with a weight cache: workers, and the agents of nodes, which are of no RayCluster. */}}
{{- define "cotenant.cachePods" -}}
matchExpressions:
- {key: cotenant.dev/cache, operator: Exists}
{{- end }}

{{- define "cotenant.headPods" -}}
matchLabels: {ray.io/node-type: head}
{{- end }}

{{/* DNS, under the port of its Service and under that of OpenShift's pods. */}}
{{- define "cotenant.dnsEgress" -}}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
  - {protocol: UDP, port: 5353}
  - {protocol: TCP, port: 5353}
{{- end }}

{{- define "cotenant.outsideEgress" -}}
- ports:
  {{- range .Values.networkPolicy.egress.ports }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}
