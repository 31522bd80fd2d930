{{/* What the agents' pods and the pods of `helm test` share. They take {root, deployment, agent}. */}}

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

{{/*
How an agent takes part in the election, if there is one. These stand before what was written: the Role is about the
Lease of this name alone.
*/}}
{{- define "ita-ag-oase.env" -}}
{{- if include "ita-ag-oase.isDoubled" .root -}}
- name: LEADER_ELECTION
  value: lease
- name: LEASE_NAME
  value: {{ .agent.name | quote }}
- name: LEASE_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end -}}
{{- end -}}

{{- define "ita-ag-oase.volumeMounts" -}}
{{- $paths := include "ita-ag-oase.paths" .root | fromJson -}}
{{- $place := int .agent.place -}}
- name: storage
  mountPath: {{ $paths.storage | quote }}
- name: home-{{ $place }}
  mountPath: {{ $paths.home | quote }}
- name: tmp-{{ $place }}
  mountPath: {{ $paths.tmp | quote }}
{{- if .agent.secretFiles }}
- name: secrets-{{ $place }}
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
{{- $place := int .agent.place -}}
- name: home-{{ $place }}
  emptyDir:
    sizeLimit: {{ $scratch.homeSizeLimit | default "16Mi" | quote }}
- name: tmp-{{ $place }}
  emptyDir:
    sizeLimit: {{ $scratch.tmpSizeLimit | default "256Mi" | quote }}
{{- with .agent.secretFiles }}
- name: secrets-{{ $place }}
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

{{/* The volumes of all agents of a pod together. Takes {root, deployment}. */}}
{{- define "ita-ag-oase.sharedVolumes" -}}
- name: storage
{{- if .deployment.claim }}
  persistentVolumeClaim:
    claimName: {{ .deployment.claim | quote }}
{{- else }}
  emptyDir:
    sizeLimit: {{ (.root.Values.persistence | default dict).size | default "10Gi" | quote }}
{{- end }}
{{- with .root.Values.caBundle }}
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
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
What both kinds of pod have in their spec besides containers and volumes. Takes {root, deployment}. The token is for the
election alone; that it is mounted is said here, so that no other pod of the account gets it.
*/}}
{{- define "ita-ag-oase.podSpec" -}}
{{- $isDoubled := eq (include "ita-ag-oase.isDoubled" .root) "true" -}}
serviceAccountName: {{ .deployment.account | quote }}
automountServiceAccountToken: {{ or $isDoubled .root.Values.automountServiceAccountToken | default false }}
enableServiceLinks: {{ .root.Values.enableServiceLinks | default false }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .root.Values.nodeSelector }}
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
