{{- define "lora-operator.name" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "lora-operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lora-operator.labels" -}}
{{ include "lora-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "lora-operator.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "lora-operator.name" .) }}
{{- end }}

{{- /* The pod of `helm test`: no Service, budget or policy of the operator may select it. */ -}}
{{- define "lora-operator.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Out of a pod of ours: the API server and DNS. */ -}}
{{- define "lora-operator.egress" -}}
- ports:
  {{- range .Values.networkPolicy.apiServerPorts }}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
  {{- with .Values.networkPolicy.apiServerCIDRs }}
  to:
  {{- range . }}
  - ipBlock: {cidr: {{ . | quote }}}
  {{- end }}
  {{- end }}
- ports:
  {{- range .Values.networkPolicy.dnsPorts }}
  - {port: {{ . }}, protocol: UDP}
  - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}

{{- /* What its roles grant and where, as the self-test asks for it; "" is all namespaces. */ -}}
{{- define "lora-operator.rights" -}}
{{- $rules := include "lora-operator.rules" . | fromYamlArray }}
{{- $rights := list (dict "namespaces" (.Values.namespaces | default (list "")) "rules" $rules) }}
{{- if .Values.leaderElection.enabled }}
{{- $rules = include "lora-operator.leaseRules" . | fromYamlArray }}
{{- $rights = append $rights (dict "namespaces" (list .Release.Namespace) "rules" $rules) }}
{{- end }}
{{- $rights | toJson }}
{{- end }}

{{- /* Exactly what the operator calls, which a test holds. No verb on Secrets: pods mount them. */ -}}
{{- define "lora-operator.rules" -}}
- apiGroups: [lora-operator.dev]
  resources: [loradeployments]
  verbs: [get, list, watch]
- apiGroups: [lora-operator.dev]
  resources: [loradeployments/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.networkPolicy.pods.enabled }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
{{- end }}
{{- if .Values.kueue.enabled }}
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end }}
{{- end }}

{{- /* A right to create cannot name the object. */ -}}
{{- define "lora-operator.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "lora-operator.name" . }}]
  verbs: [get, patch]
{{- end }}
