{{- define "era-hub.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "era-hub.fullname" -}}
{{- $name := include "era-hub.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* A Deployment's selector can't change: nothing that a new version changes belongs here. */}}
{{- define "era-hub.selector" -}}
app.kubernetes.io/name: {{ include "era-hub.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "era-hub.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "era-hub.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: era-hub
{{- end }}

{{- define "era-hub.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "era-hub.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "era-hub.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "era-hub.claim" -}}
{{- default (include "era-hub.fullname" .) .Values.database.sqlite.existingClaim }}
{{- end }}

{{- /* The hub's base URL, with slashes at both ends. */}}
{{- define "era-hub.base" -}}
{{- $path := trimAll "/" .Values.hub.baseUrl }}
{{- if $path }}{{ printf "/%s/" $path }}{{ else }}/{{ end }}
{{- end }}

{{- define "era-hub.hubPort" -}}
{{- $url := urlParse .Values.hub.url }}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end }}

{{- define "era-hub.prefix" -}}
{{- include "era-hub.base" . }}services/era/
{{- end }}

{{- define "era-hub.jobNamespace" -}}
{{- default .Release.Namespace .Values.jobNamespace }}
{{- end }}

{{- /* `config`, with what follows from other values. */}}
{{- define "era-hub.config" -}}
{{- $cloud := dict "namespace" (include "era-hub.jobNamespace" .) "log_directory" "/var/lib/era-hub/logs" }}
{{- if .Values.priorityClass.create }}
{{- $_ := set $cloud "priority_class" .Values.priorityClass.name }}
{{- end }}
{{- mergeOverwrite (dict "KubernetesCloud" $cloud) .Values.config | toPrettyJson }}
{{- end }}

{{- /* Values that fit the schema one by one, but not together. */}}
{{- define "era-hub.check" -}}
{{- if dig "KubernetesCloud" "namespace" "" .Values.config }}
{{- fail "config.KubernetesCloud.namespace: set jobNamespace instead, so that the roles fit" }}
{{- end }}
{{- if eq .Values.database.type "sqlite" }}
{{- if gt (int .Values.replicas) 1 }}
{{- fail "replicas: a SQLite database belongs to one service; set database.type to postgresql for more" }}
{{- end }}
{{- else if not .Values.database.postgresql.urlSecret.name }}
{{- fail "database.postgresql.urlSecret.name: name the Secret that holds the database's URL" }}
{{- end }}
{{- end }}

{{- /* Destinations of a rule of egress: ranges of addresses, or any. */}}
{{- define "era-hub.ranges" -}}
{{- with . -}}
to:
  {{- range . }}
  - ipBlock:
      cidr: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}
