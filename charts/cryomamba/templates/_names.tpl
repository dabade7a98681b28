{{/* What everything of a release is called, and the labels by which it is found. */}}

{{- define "cryomamba.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of what belongs to no namespace: two releases may share a cluster. */}}
{{- define "cryomamba.clusterName" -}}
{{- printf "%s.%s" (include "cryomamba.fullname" .) .Release.Namespace -}}
{{- end -}}

{{/* (list ROOT COMPONENT): labels that never change. */}}
{{- define "cryomamba.selector" -}}
app.kubernetes.io/name: {{ (first .).Chart.Name }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{/* (list ROOT COMPONENT): all labels of an object. */}}
{{- define "cryomamba.labels" -}}
{{- $root := first . -}}
{{ include "cryomamba.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: cryomamba
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (list ROOT COMPONENT): the name of a component's objects, its service account included. */}}
{{- define "cryomamba.componentName" -}}
{{- printf "%s-%s" (include "cryomamba.fullname" (first .)) (last .) -}}
{{- end -}}

{{/* (list ROOT IMAGE): a digest counts before a tag, a tag before the chart's version. */}}
{{- define "cryomamba.image" -}}
{{- $root := first . -}}
{{- $image := last . -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* It comes from another registry than ours. */}}
{{- define "cryomamba.minioImage" -}}
{{- with .Values.minio.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- end -}}
