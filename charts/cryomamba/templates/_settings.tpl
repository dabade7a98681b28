{{/* Values as the settings of the API server and of the operator. */}}

{{/* (list PREFIX SETTINGS OTHERS): a line for each variable that has a value; the last ones count first. */}}
{{- define "cryomamba.variables" -}}
{{- $prefix := first . -}}
{{- $settings := index . 1 -}}
{{- range $name, $value := last . }}{{ $_ := set $settings $name $value }}{{ end }}
{{- range $name, $value := $settings }}
{{- $text := include "cryomamba.text" $value }}
{{- if $text }}
{{ $prefix }}{{ upper $name }}: {{ $text | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A value in the words of a setting: Helm makes every number a float, and would write a large one as 1e+10. */}}
{{- define "cryomamba.text" -}}
{{- if kindIs "slice" . }}{{ join "," . }}
{{- else if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}
{{- else if not (kindIs "invalid" .) }}{{ . }}
{{- end }}
{{- end -}}

{{- define "cryomamba.s3Secret" -}}
{{- if .Values.minio.enabled -}}
{{ include "cryomamba.componentName" (list . "minio") }}
{{- else -}}
{{ .Values.s3.existingSecret.name | default (include "cryomamba.componentName" (list . "s3")) }}
{{- end -}}
{{- end -}}

{{- define "cryomamba.s3Endpoint" -}}
{{- if .Values.minio.enabled -}}
http://{{ include "cryomamba.componentName" (list . "minio") }}.{{ .Release.Namespace }}.svc:9000
{{- else -}}
{{ .Values.s3.endpoint }}
{{- end -}}
{{- end -}}

{{/* What API server and operator are told of the store alike, as YAML. */}}
{{- define "cryomamba.storeSettings" -}}
s3_endpoint: {{ include "cryomamba.s3Endpoint" . | quote }}
s3_bucket: {{ .Values.s3.bucket | quote }}
s3_region: {{ .Values.s3.region | quote }}
s3_path_style: {{ .Values.s3.pathStyle }}
s3_access_key_file: /var/run/secrets/cryomamba.io/s3/access_key
s3_secret_key_file: /var/run/secrets/cryomamba.io/s3/secret_key
{{- if .Values.s3.ca.configMap }}
s3_ca_file: /var/run/secrets/cryomamba.io/ca/ca.crt
{{- end }}
{{- end -}}
