{{/* The name of the chart's objects; room is left for what is appended. */}}
{{- define "sheaf.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The operator's objects. */}}
{{- define "sheaf.operator" -}}
{{- printf "%s-operator" (include "sheaf.fullname" .) -}}
{{- end -}}

{{/* The agents' objects. */}}
{{- define "sheaf.agent" -}}
{{- printf "%s-agent" (include "sheaf.fullname" .) -}}
{{- end -}}

{{- define "sheaf.agentSelector" -}}
app.kubernetes.io/name: sheaf
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end -}}

{{- define "sheaf.agentLabels" -}}
{{ include "sheaf.agentSelector" . }}
{{ include "sheaf.labelsOfAll" . }}
{{- end -}}

{{/* Agents have somebody to send to, and a namespace that lets them run. */}}
{{- define "sheaf.agentsAreWelcome" -}}
{{- if not .Values.agent.to -}}
{{- fail "agent.enabled needs agent.to: name the Service of a LogAggregator that rebuilds files, such as http://logs.default.svc:8080" -}}
{{- end -}}
{{- if and .Values.namespaces .Values.agent.namespace.create -}}
{{- fail "agent.namespace.create takes rights in the whole cluster, which namespaces rules out: have the namespace made, with the label pod-security.kubernetes.io/enforce: privileged, and set agent.namespace.create=false" -}}
{{- end -}}
{{- if and .Values.agent.namespace.create (eq .Values.agent.namespace.name .Release.Namespace) -}}
{{- fail "agent.namespace.name is that of the release, which is there already: agents need another one, or agent.namespace.create=false" -}}
{{- end -}}
{{- end -}}

{{/* What belongs to the API custom.metrics.k8s.io. */}}
{{- define "sheaf.customMetrics" -}}
{{- printf "%s-custom-metrics" (include "sheaf.operator" .) -}}
{{- end -}}

{{/* A cluster has that API once: what somebody else serves is not taken over. */}}
{{- define "sheaf.customMetricsAreOurs" -}}
{{- if .Values.namespaces -}}
{{- fail "customMetrics.enabled takes rights in the whole cluster, which namespaces rules out: set only one of them" -}}
{{- end -}}
{{- if eq (int .Values.replicas) 0 -}}
{{- fail "customMetrics.enabled needs an operator: an API that nobody serves keeps every namespace from being deleted" -}}
{{- end -}}
{{- $own := printf "%s/%s" .Release.Namespace (include "sheaf.operator" .) -}}
{{- range (lookup "apiregistration.k8s.io/v1" "APIService" "" "").items -}}
{{- $service := default dict .spec.service -}}
{{- $by := printf "%s/%s" (default "-" $service.namespace) (default "-" $service.name) -}}
{{- if and (eq (default "" .spec.group) "custom.metrics.k8s.io") (ne $by $own) -}}
{{- fail (printf "APIService %s belongs to somebody else (service %s): delete it first, or leave customMetrics.enabled false and have that adapter serve sheaf_queue_used_percent" .metadata.name $by) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the operator's pods are selected by. The nodes' NetworkPolicies know the first and the last. */}}
{{- define "sheaf.selector" -}}
app.kubernetes.io/name: sheaf
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "sheaf.labels" -}}
{{ include "sheaf.selector" . }}
{{ include "sheaf.labelsOfAll" . }}
{{- end -}}

{{- define "sheaf.labelsOfAll" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: sheaf
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sheaf.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sheaf.serviceAccount" -}}
{{- default (ternary (include "sheaf.operator" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}
