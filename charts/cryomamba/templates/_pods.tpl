{{/* What pods have in common. All meet Pod Security "restricted". */}}

{{/* (list ROOT VALUES): the fields of a pod that say where and as whom it runs. */}}
{{- define "cryomamba.podFields" -}}
{{- $root := first . -}}
{{- $values := last . -}}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- range $field := list "priorityClassName" "runtimeClassName" }}
{{- with index $values $field }}
{{ $field }}: {{ . }}
{{- end }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $values $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "cryomamba.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* (list ROOT COMPONENT VALUES ANNOTATIONS): metadata of a pod template. */}}
{{- define "cryomamba.podMetadata" -}}
{{- $values := index . 2 -}}
labels:
  {{- include "cryomamba.labels" (list (index . 0) (index . 1)) | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default (dict) $values.podAnnotations) (index . 3) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* ROOT: files of the store's credentials and certificates, as volumes and where they are mounted. */}}
{{- define "cryomamba.storeVolumes" -}}
- name: s3-credentials
  secret:
    secretName: {{ include "cryomamba.s3Secret" . }}
    items:
      - {key: {{ .Values.s3.existingSecret.accessKeyKey }}, path: access_key}
      - {key: {{ .Values.s3.existingSecret.secretKeyKey }}, path: secret_key}
{{- with .Values.s3.ca.configMap }}
- name: s3-ca
  configMap:
    name: {{ . }}
    items:
      - {key: {{ $.Values.s3.ca.key }}, path: ca.crt}
{{- end }}
{{- end -}}

{{- define "cryomamba.storeMounts" -}}
- {name: s3-credentials, mountPath: /var/run/secrets/cryomamba.io/s3, readOnly: true}
{{- if .Values.s3.ca.configMap }}
- {name: s3-ca, mountPath: /var/run/secrets/cryomamba.io/ca, readOnly: true}
{{- end }}
{{- end -}}
