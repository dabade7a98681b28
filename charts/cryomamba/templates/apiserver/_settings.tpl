{{/* The settings of the API server, which the sweep has too. */}}
{{- define "cryomamba.apiserver.settings" -}}
{{- $jobs := .Values.jobs }}
{{- $settings := include "cryomamba.storeSettings" . | fromYaml }}
{{- $_ := merge $settings (dict
  "kubernetes_namespace" .Release.Namespace
  "listen_host" .Values.listenHost
  "listen_port" 8000
  "metrics_host" .Values.listenHost
  "metrics_port" 9090
  "data_dir" "/data"
  "log_format" "json"
  "trusted_proxies" .Values.apiServer.trustedProxies
  "cors_origins" .Values.apiServer.corsOrigins
  "s3_public_endpoint" .Values.s3.publicEndpoint
  "token_issuer" .Values.auth.issuer
  "token_audience" .Values.auth.audience
  "token_secret_file" "/var/run/secrets/cryomamba.io/token/token_secret"
  "oidc_issuer" .Values.auth.oidc.issuer
  "oidc_jwks_url" .Values.auth.oidc.jwksUrl
  "denied_jtis" .Values.auth.deniedTokens
  "job_gpus" $jobs.gpus
  "job_memory" $jobs.memory
  "job_cpu" $jobs.cpu
  "job_max_attempts" $jobs.maxAttempts
  "job_ttl_seconds" $jobs.ttlSeconds
  "job_deadline_seconds" $jobs.deadlineSeconds
  "job_priority_class" $jobs.priorityClassName
  "job_queue" $jobs.queueName
  "keep_files_days" .Values.sweep.keepFilesDays
  "keep_jobs_days" .Values.sweep.keepJobsDays
) }}
{{- if .Values.sweep.enabled }}
{{- $_ := set $settings "sweep_interval_seconds" 0 }}
{{- end }}
{{- if .Values.gpuAgent.enabled }}
{{- $labels := include "cryomamba.selector" (list . "gpu-agent") | fromYaml }}
{{- $pairs := list }}
{{- range $label, $value := $labels }}{{ $pairs = append $pairs (printf "%s=%s" $label $value) }}{{ end }}
{{- $_ := set $settings "gpu_agent_selector" (join "," $pairs) }}
{{- $_ := set $settings "gpu_agent_port" .Values.gpuAgent.port }}
{{- end }}
{{- include "cryomamba.variables" (list "CRYOMAMBA_" $settings .Values.apiServer.settings) }}
{{- end -}}

{{/* Volumes and mounts that API server and sweep have alike. */}}
{{- define "cryomamba.apiserver.volumes" -}}
{{ include "cryomamba.storeVolumes" . }}
- name: token
  secret:
    secretName: {{ .Values.auth.tokenSecret.existingSecret | default (include "cryomamba.componentName" (list . "token")) }}
    items:
      - {key: {{ .Values.auth.tokenSecret.key }}, path: token_secret}
- name: data
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- end -}}

{{- define "cryomamba.apiserver.mounts" -}}
{{ include "cryomamba.storeMounts" . }}
- {name: token, mountPath: /var/run/secrets/cryomamba.io/token, readOnly: true}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* Environment that is not in the ConfigMap because it is secret. */}}
{{- define "cryomamba.apiserver.environment" -}}
{{- with .Values.rateLimits.existingSecret }}
- name: CRYOMAMBA_LIMITS_URL
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: {{ $.Values.rateLimits.key }}}
{{- end }}
{{- with .Values.apiServer.extraEnv }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}
