{{/* Labels of every object. Call with (dict "root" $ "component" "gateway"); component may be empty. */}}
{{- define "cotenant.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "cotenant.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: cotenant
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels by which Deployments, Services and policies find pods: they never change. */}}
{{- define "cotenant.selector" -}}
app.kubernetes.io/name: cotenant
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* Labels of pods: without versions, so that a chart that changes nothing of a pod does not replace it. */}}
{{- define "cotenant.podLabels" -}}
{{ include "cotenant.selector" . }}
app.kubernetes.io/part-of: cotenant
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with (index .root.Values .component).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* (dict "root" $ "program" "operator") → image reference. */}}
{{- define "cotenant.image" -}}
{{- $image := .root.Values.image -}}
{{- with index $image .program -}}
{{ . }}
{{- else -}}
{{ printf "%s/cotenant-%s:%s" (trimSuffix "/" $image.repository) .program ($image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* (dict "root" $ "program" "operator") → name of its service account. */}}
{{- define "cotenant.serviceAccountName" -}}
{{- $account := (index .root.Values .program).serviceAccount -}}
{{- $account.name | default (ternary (printf "cotenant-%s" .program) "default" $account.create) -}}
{{- end }}

{{/* Security of a pod, as the Pod Security Standard `restricted` wants it. */}}
{{- define "cotenant.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "cotenant.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod runs. Call with (dict "root" $ "program" "gateway" "spread" (list "kubernetes.io/hostname")). */}}
{{- define "cotenant.scheduling" -}}
{{- $own := index .root.Values .program }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with $own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if $own.topologySpreadConstraints }}
{{ toYaml $own.topologySpreadConstraints }}
{{- else }}
{{- $selector := include "cotenant.selector" (dict "root" .root "component" .program) }}
{{- range .spread }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels: {{ $selector | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Seconds from SIGTERM to SIGKILL of a gateway: the last accept, the longest request, the worker's last words. */}}
{{- define "cotenant.gatewayGraceSeconds" -}}
{{- add .Values.gateway.preStopSeconds .Values.gateway.requestTimeoutSeconds 30 -}}
{{- end }}

{{/* URL that users call, or nothing where it is the Service's name. */}}
{{- define "cotenant.gatewayUrl" -}}
{{- $outside := include "cotenant.outsideUrl" . -}}
{{- $port := int .Values.gateway.service.port -}}
{{- if $outside -}}
{{ $outside }}
{{- else if ne $port 80 -}}
{{ printf "http://cotenant-gateway.%s.svc:%d" .Release.Namespace $port }}
{{- end -}}
{{- end }}

{{/* URL that users outside the cluster call, or nothing where the values name none. */}}
{{- define "cotenant.outsideUrl" -}}
{{- $gateway := .Values.gateway -}}
{{- if $gateway.url -}}
{{ $gateway.url }}
{{- else if $gateway.ingress.enabled -}}
{{ printf "%s://%s" (ternary "https" "http" (not (empty $gateway.ingress.tlsSecretName))) $gateway.ingress.host }}
{{- else if and $gateway.httpRoute.enabled $gateway.httpRoute.hostnames -}}
{{ printf "https://%s" (first $gateway.httpRoute.hostnames) }}
{{- end -}}
{{- end }}

{{/* The operator's settings file; operator_settings.py is its schema. */}}
{{- define "cotenant.operatorSettings" -}}
namespace: {{ .Release.Namespace }}
gatewayService: cotenant-gateway
gatewayUrl: {{ include "cotenant.gatewayUrl" . | quote }}
requestTimeout: {{ .Values.gateway.requestTimeoutSeconds }}s
image:
  name: {{ include "cotenant.image" (dict "root" $ "program" "serving") }}
  pullPolicy: {{ .Values.image.pullPolicy }}
  {{- with .Values.imagePullSecrets }}
  pullSecrets:
  {{- range . }}
  - {{ .name }}
  {{- end }}
  {{- end }}
ray:
  idleTimeout: {{ .Values.pools.idleTimeout }}
resources: {{- toYaml .Values.pools.resources | nindent 2 }}
{{- range $name := list "extraEnv" "extraVolumes" "extraVolumeMounts" }}
{{- with index $.Values $name }}
{{ $name }}: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}
networkPolicies: {{ .Values.networkPolicy.enabled }}
defaultPool: {{- toYaml .Values.defaultPool | nindent 2 }}
usageRetentionDays: {{ .Values.operator.usageRetentionDays | int64 }}
timeouts: {{- toYaml (set (deepCopy .Values.operator.timeouts) "rollDrain" .Values.pools.rollDrain) | nindent 2 }}
{{- end }}
