{{/* What the agents' pod and the pods of `helm test` share. They take {root, agent}. */}}

{{/* Where an agent's variables come from; later ones win. */}}
{{- define "ita-ag-oase.envFrom" -}}
- configMapRef:
    name: params-{{ .agent.name }}
- secretRef:
    name: secret-{{ .agent.name }}
{{- with .agent.existingSecret }}
- secretRef:
    name: {{ . | quote }}
{{- end }}
{{- with .root.Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ita-ag-oase.volumeMounts" -}}
{{- $paths := include "ita-ag-oase.paths" .root | fromJson -}}
{{- $index := int .agent.index -}}
- name: storage
  mountPath: {{ $paths.storage | quote }}
- name: home-{{ $index }}
  mountPath: {{ $paths.home | quote }}
- name: tmp-{{ $index }}
  mountPath: {{ $paths.tmp | quote }}
{{- if .agent.secretFiles }}
- name: secrets-{{ $index }}
  mountPath: /etc/exastro/secrets
  readOnly: true
{{- end }}
{{- with .root.Values.caBundle }}
{{- if or .configMap .secret }}
- name: ca-bundle
  mountPath: /etc/exastro/ca
  readOnly: true
{{- end }}
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The volumes of one agent alone: two agents of a pod must not see each other's files. */}}
{{- define "ita-ag-oase.ownVolumes" -}}
{{- $scratch := .root.Values.scratch | default dict -}}
{{- $index := int .agent.index -}}
- name: home-{{ $index }}
  emptyDir:
    sizeLimit: {{ $scratch.homeSizeLimit | default "16Mi" | quote }}
- name: tmp-{{ $index }}
  emptyDir:
    sizeLimit: {{ $scratch.tmpSizeLimit | default "256Mi" | quote }}
{{- with .agent.secretFiles }}
- name: secrets-{{ $index }}
  projected:
    sources:
      {{- range $variable, $file := . }}
      - secret:
          name: {{ $file.secret | quote }}
          items:
            - key: {{ $file.key | quote }}
              path: {{ $variable | quote }}
      {{- end }}
{{- end }}
{{- end -}}

{{/* The volumes of all agents together. Takes the root alone. */}}
{{- define "ita-ag-oase.sharedVolumes" -}}
- name: storage
{{- if include "ita-ag-oase.isKept" . }}
  persistentVolumeClaim:
    claimName: {{ include "ita-ag-oase.claimName" . | quote }}
{{- else }}
  emptyDir:
    sizeLimit: {{ (.Values.persistence | default dict).size | default "10Gi" | quote }}
{{- end }}
{{- with .Values.caBundle }}
{{- if .secret }}
- name: ca-bundle
  secret:
    secretName: {{ .secret | quote }}
    items: [{key: {{ .key | default "ca.crt" | quote }}, path: ca.crt}]
{{- else if .configMap }}
- name: ca-bundle
  configMap:
    name: {{ .configMap | quote }}
    items: [{key: {{ .key | default "ca.crt" | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What both kinds of pod have in their spec besides containers and volumes. Takes the root alone. */}}
{{- define "ita-ag-oase.podSpec" -}}
serviceAccountName: {{ include "ita-ag-oase.serviceAccountName" . | quote }}
automountServiceAccountToken: {{ .Values.automountServiceAccountToken | default false }}
enableServiceLinks: {{ .Values.enableServiceLinks | default false }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The tolerations that were written, and those with which the pod leaves a failed node sooner than after the usual five
minutes, unless something was written about that.
*/}}
{{- define "ita-ag-oase.tolerations" -}}
{{- $tolerations := .Values.tolerations | default list -}}
{{- if not (kindIs "invalid" .Values.nodeFailureSeconds) -}}
{{- range $taint := list "node.kubernetes.io/not-ready" "node.kubernetes.io/unreachable" -}}
{{-   $isTold := false -}}
{{-   range $.Values.tolerations -}}
{{-     $isMeant := and (eq (.key | default $taint) $taint) (eq (.effect | default "NoExecute") "NoExecute") -}}
{{-     $isTold = or $isTold $isMeant -}}
{{-   end -}}
{{-   if not $isTold -}}
{{-     $tolerations = append $tolerations (dict
          "key" $taint "operator" "Exists" "effect" "NoExecute" "tolerationSeconds" $.Values.nodeFailureSeconds) -}}
{{-   end -}}
{{- end -}}
{{- end -}}
{{- toYaml $tolerations -}}
{{- end -}}
