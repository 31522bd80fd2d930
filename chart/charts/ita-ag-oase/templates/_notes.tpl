{{/* What is told after an installation: what to run next, and what will not work as it is written. */}}

{{- define "ita-ag-oase.notes" -}}
{{- $name := include "ita-ag-oase.name" . -}}
{{- $selector := printf "app.kubernetes.io/instance=%s,app.kubernetes.io/name=%s" .Release.Name $name -}}
{{- $isDoubled := include "ita-ag-oase.isDoubled" . -}}
{{- $agents := include "ita-ag-oase.agents" . | fromJsonArray -}}
{{- $deployments := include "ita-ag-oase.deployments" . | fromJsonArray -}}
OASE agent {{ .Chart.AppVersion }}: {{ if include "ita-ag-oase.isSpread" . -}}
{{ len $deployments }} deployment{{ if gt (len $deployments) 1 }}s with an agent each{{ else }} with an agent{{ end }}
{{- else -}}
deployment {{ $name }} with {{ len $agents }} agent{{ if gt (len $agents) 1 }}s{{ end }}
{{- end }}
{{- if $isDoubled }},{{ if gt (len $agents) 1 }} each{{ end }} at work in one of {{ include "ita-ag-oase.replicas" . }} pods{{ end }}.

Is it running?
  kubectl get pods --namespace {{ .Release.Namespace }} --selector {{ $selector }}
{{- if $isDoubled }}
Which pod works?
{{- range $agents }}
  kubectl get lease --namespace {{ $.Release.Namespace }} {{ .name }}
{{- end }}
{{- end }}
Can it reach Exastro and its sources?
  helm test {{ .Release.Name }} --namespace {{ .Release.Namespace }} --logs
What does it say?
{{- range $deployment := $deployments }}
{{- range .agents }}
{{- if $isDoubled }}
  kubectl logs --namespace {{ $.Release.Namespace }} --selector {{ $selector }} --container {{ .name }} --prefix --tail 100
{{- else }}
  kubectl logs --namespace {{ $.Release.Namespace }} deployment/{{ $deployment.name }} --container {{ .name }}
{{- end }}
{{- end }}
{{- end }}
{{- range $deployment := $deployments }}
{{- range .agents }}
{{- if .isWatched }}
The status page of {{ .name }}, at http://127.0.0.1:{{ int .port }}/:
  kubectl port-forward --namespace {{ $.Release.Namespace }} deployment/{{ $deployment.name }} {{ int .port }}:{{ int .port }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The warnings, as a JSON list of sentences. */}}
{{- define "ita-ag-oase.warnings" -}}
{{- $warnings := list -}}
{{- range $deployment := include "ita-ag-oase.deployments" . | fromJsonArray -}}
{{- $ports := list -}}
{{- range $agent := $deployment.agents -}}
{{-   $facts := dict "root" $ "agent" $agent "given" (index $.Values.agents (int $agent.index)) -}}
{{-   $warnings = concat $warnings
        (include "ita-ag-oase.configurationWarnings" $facts | fromJsonArray)
        (include "ita-ag-oase.credentialWarnings" $facts | fromJsonArray)
        (include "ita-ag-oase.watchingWarnings" $facts | fromJsonArray)
        (include "ita-ag-oase.spreadingWarnings" $facts | fromJsonArray)
        (include "ita-ag-oase.electionWarnings" $facts | fromJsonArray) -}}
{{-   if and $agent.port (has $agent.port $ports) -}}
{{-     $warnings = append $warnings (printf
        "agents[%d]: another agent of the pod has STATUS_PORT %d too: write another number" (int $agent.index) (int $agent.port)) -}}
{{-   end -}}
{{-   $ports = append $ports $agent.port -}}
{{- end -}}
{{- end -}}
{{- $warnings = concat $warnings
      (include "ita-ag-oase.storageWarnings" . | fromJsonArray)
      (include "ita-ag-oase.standbyWarnings" . | fromJsonArray)
      (include "ita-ag-oase.metricsWarnings" . | fromJsonArray)
      (include "ita-ag-oase.unusedWarnings" . | fromJsonArray)
      (include "ita-ag-oase.unknownWarnings" . | fromJsonArray) -}}
{{- toJson $warnings -}}
{{- end -}}

{{/* Variables without which the agent does not start. Takes {root, agent}, as the next ones do. */}}
{{- define "ita-ag-oase.configurationWarnings" -}}
{{- $warnings := list -}}
{{- $missing := list -}}
{{- $variables := merge (dict) .agent.secret .agent.params -}}
{{- range $variable := list "EXASTRO_URL" "EXASTRO_ORGANIZATION_ID" "EXASTRO_WORKSPACE_ID" "EVENT_COLLECTION_SETTINGS_NAMES" -}}
{{-   if not (get $variables $variable) -}}
{{-     $missing = append $missing $variable -}}
{{-   end -}}
{{- end -}}
{{- if and $missing (not (or .agent.existingSecret .root.Values.extraEnvFrom)) -}}
{{-   $warnings = append $warnings (printf
        "agents[%d]: the agent does not start without %s: write it in extraEnv" (int .agent.index) (join ", " $missing)) -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{- define "ita-ag-oase.credentialWarnings" -}}
{{- $warnings := list -}}
{{- $index := int .agent.index -}}
{{- $variables := merge (dict) .agent.secret .agent.params -}}
{{- $isElsewhere := or .agent.existingSecret .root.Values.extraEnvFrom -}}
{{- $hasToken := or $variables.EXASTRO_REFRESH_TOKEN $variables.EXASTRO_REFRESH_TOKEN_FILE -}}
{{- $hasPassword := and $variables.EXASTRO_USERNAME (or $variables.EXASTRO_PASSWORD $variables.EXASTRO_PASSWORD_FILE) -}}
{{- if not (or $isElsewhere $hasToken $hasPassword) -}}
{{-   $warnings = append $warnings (printf
        "agents[%d]: there is no way to authenticate: write EXASTRO_REFRESH_TOKEN (or EXASTRO_USERNAME and EXASTRO_PASSWORD) in secret, or name a Secret of yours in existingSecret" $index) -}}
{{- end -}}
{{- $examples := dict
      "EXASTRO_REFRESH_TOKEN" (list "change-this-token" "exastro_refresh_token" "your_exastro_refresh_token")
      "EXASTRO_PASSWORD" (list "sample-password" "your-ita-user-password") -}}
{{- range $variable, $placeholders := $examples -}}
{{-   if has (get $variables $variable) $placeholders -}}
{{-     $warnings = append $warnings (printf "agents[%d]: %s is still the example: write your own in secret" $index $variable) -}}
{{-   end -}}
{{- end -}}
{{- range $variable, $value := .given.secret -}}
{{-   if not (or (kindIs "string" $value) (kindIs "invalid" $value)) -}}
{{-     $warnings = append $warnings (printf
        "agents[%d]: %s in secret is written without quotes, so leading zeros and the like are lost: write it in quotes" $index $variable) -}}
{{-   end -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{- define "ita-ag-oase.watchingWarnings" -}}
{{- $warnings := list -}}
{{- if not .agent.isKnown -}}
{{-   $warnings = append $warnings (printf
        "agents[%d]: whether %s is this agent (2.7.1 or later) cannot be told from its tag, so nothing watches it: leave image.tag empty, or write such a version" (int .agent.index) .agent.image) -}}
{{- else if not .agent.isWatched -}}
{{-   $warnings = append $warnings (printf
        "agents[%d]: its status page is off or cannot be reached from outside, so nothing watches it: leave STATUS_PORT and STATUS_ADDRESS out of extraEnv" (int .agent.index)) -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{/* What is said of the claim of an agent's own where there is none. */}}
{{- define "ita-ag-oase.spreadingWarnings" -}}
{{- $warnings := list -}}
{{- if and .given.persistence (not (include "ita-ag-oase.isSpread" .root)) -}}
{{-   $warnings = append $warnings (printf
        "agents[%d].persistence has no effect, since the agents share a pod and its volume: write persistence, or layout pod-per-agent" (int .agent.index)) -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{/* Variables of the election, which stand behind those of the chart. */}}
{{- define "ita-ag-oase.electionWarnings" -}}
{{- $warnings := list -}}
{{- if include "ita-ag-oase.isDoubled" .root -}}
{{-   range $variable := list "LEADER_ELECTION" "LEASE_NAME" "LEASE_NAMESPACE" "POD_NAME" -}}
{{-     if or (hasKey $.agent.params $variable) (hasKey $.agent.secret $variable) -}}
{{-       $warnings = append $warnings (printf
          "agents[%d]: %s has no effect with highAvailability, which sets it itself: leave it out" (int $.agent.index) $variable) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{- define "ita-ag-oase.storageWarnings" -}}
{{- $warnings := list -}}
{{- $persistence := .Values.persistence | default dict -}}
{{- if not $persistence.enabled -}}
{{-   $warnings = append $warnings "persistence.enabled is off: events that wait for delivery are lost with the pod. Turn it on, except for trying out" -}}
{{- end -}}
{{- if and (not $persistence.selector) (ne (empty $persistence.matchLabels) (empty $persistence.matchExpressions)) -}}
{{-   $warnings = append $warnings "persistence.matchLabels and matchExpressions are heeded only together, since an existing claim cannot be changed: for a new claim write persistence.selector, or use claimRef in the volume or persistence.volumeName" -}}
{{- end -}}
{{- if and (gt (.Values.replicas | default 1 | int) 1) (not (include "ita-ag-oase.isDoubled" .)) -}}
{{-   $warnings = append $warnings "replicas is more than 1: one pod works, the others wait for its store. To have one stand by on another node, turn highAvailability.enabled on; to share the work, divide the settings among several agents" -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{/* What keeps a pod that stands by from taking over. */}}
{{- define "ita-ag-oase.standbyWarnings" -}}
{{- $warnings := list -}}
{{- if include "ita-ag-oase.isDoubled" . -}}
{{-   $claims := list -}}
{{-   range $deployment := include "ita-ag-oase.deployments" . | fromJsonArray -}}
{{-     if not $deployment.isClaimMade -}}
{{-       $claims = append $claims $deployment.claim -}}
{{-     end -}}
{{-   end -}}
{{-   range $claim := uniq $claims -}}
{{-     $warnings = append $warnings (printf
        "highAvailability: whether two nodes can use the claim %s at once cannot be told from here: its access mode must be ReadWriteMany" $claim) -}}
{{-   end -}}
{{-   if eq (include "ita-ag-oase.replicas" .) "1" -}}
{{-     $warnings = append $warnings "replicas is 1, so that no pod stands by: leave it out, or turn highAvailability.enabled off" -}}
{{-   end -}}
{{-   if eq ((.Values.updateStrategy | default dict).type | default "RollingUpdate") "Recreate" -}}
{{-     $warnings = append $warnings "updateStrategy.type is Recreate, so that an update ends all pods at once: leave it out, so that one goes on" -}}
{{-   end -}}
{{-   $policy := .Values.networkPolicy | default dict -}}
{{-   if and $policy.enabled $policy.egress -}}
{{-     $warnings = append $warnings "networkPolicy.egress: with highAvailability the agents go to the Kubernetes API, too: let them, or none of them will work" -}}
{{-   end -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{- define "ita-ag-oase.metricsWarnings" -}}
{{- $warnings := list -}}
{{- $metrics := .Values.metrics | default dict -}}
{{- $isMeasured := ($metrics.podMonitor | default dict).enabled -}}
{{- if and ($metrics.prometheusRule | default dict).enabled (not $isMeasured) -}}
{{-   $warnings = append $warnings "metrics.prometheusRule is on without metrics.podMonitor, so its alert OaseAgentDown fires for ever: turn metrics.podMonitor.enabled on" -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{/* Old values that never did anything, where they say something. */}}
{{- define "ita-ag-oase.unusedWarnings" -}}
{{- $persistence := .Values.persistence | default dict -}}
{{- $paths := $persistence.mountPath | default dict -}}
{{- $global := (.Values.global | default dict).agentGlobalDefinition | default dict -}}
{{- $initImage := .Values.initContainerImage | default dict -}}
{{- $pid := ($paths.pid | default dict).path | default "/var/run_app_user/httpd/pid" -}}
{{- $socket := ($paths.socket | default dict).path | default "/var/run_app_user/httpd/socket" -}}
{{- $usesInitImage := not (hasSuffix "/ubi8/ubi-init" ($initImage.repository | default "/ubi8/ubi-init")) -}}
{{- $said := list
      (list "fullnameOverride" .Values.fullnameOverride "write nameOverride")
      (list "service" .Values.service "the agent needs none")
      (list "ingress.enabled" (.Values.ingress | default dict).enabled "use kubectl port-forward to see the status page")
      (list "persistence.reinstall" $persistence.reinstall "delete the volume's data by hand")
      (list "persistence.volumeType" (ne ($persistence.volumeType | default "hostPath") "hostPath") "write persistence.storageClass")
      (list "persistence.mountPath.pid" (ne $pid "/var/run_app_user/httpd/pid") "leave it out")
      (list "persistence.mountPath.socket" (ne $socket "/var/run_app_user/httpd/socket") "leave it out")
      (list "initContainerImage" (or $usesInitImage $initImage.tag) "the first step uses the image of the first agent; volumePermissions.enabled turns it off")
      (list "global.agentGlobalDefinition.name" (ne ($global.name | default "agent-global") "agent-global") "write nameOverride")
      (list "global.agentGlobalDefinition.enabled" (eq (toString $global.enabled) "false") "run kubectl scale to stop the agents") -}}
{{- $warnings := list -}}
{{- range $said -}}
{{-   if index . 1 -}}
{{-     $warnings = append $warnings (printf "%s has no effect: %s" (index . 0) (index . 2)) -}}
{{-   end -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{/* Values that nothing reads: mostly typing mistakes. */}}
{{- define "ita-ag-oase.unknownWarnings" -}}
{{- $known := include "ita-ag-oase.knownKeys" . | fromYaml -}}
{{- $places := list
      (dict "where" "" "given" .Values "known" $known.root)
      (dict "where" "persistence." "given" (.Values.persistence | default dict) "known" $known.persistence)
      (dict "where" "serviceAccount." "given" (.Values.serviceAccount | default dict) "known" $known.serviceAccount) -}}
{{- range $index, $agent := .Values.agents -}}
{{-   $places = append $places (dict "where" (printf "agents[%d]." $index) "given" $agent "known" $known.agent) -}}
{{-   $places = append $places (dict "where" (printf
        "agents[%d].image." $index) "given" ($agent.image | default dict) "known" $known.image) -}}
{{- end -}}
{{- $warnings := list -}}
{{- range $place := $places -}}
{{-   range $key, $_ := $place.given -}}
{{-     if not (has $key $place.known) -}}
{{-       $warnings = append $warnings (printf
        "%s%s is not known and has no effect: the chart's README lists what there is" $place.where $key) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- toJson $warnings -}}
{{- end -}}

{{- define "ita-ag-oase.knownKeys" -}}
root: [
  affinity, agents, automountServiceAccountToken, caBundle, enableServiceLinks, enabled, extraEnvFrom, extraObjects,
  extraVolumeMounts, extraVolumes, fullnameOverride, global, highAvailability, imagePullSecrets, ingress,
  initContainerImage, layout, metrics, nameOverride, networkPolicy, nodeFailureSeconds, nodeSelector, persistence,
  podAnnotations, podDisruptionBudget, podLabels, podSecurityContext, priorityClassName, probes, replicas, scratch,
  securityContext, service, serviceAccount, terminationGracePeriodSeconds, tolerations, topologySpreadConstraints,
  updateStrategy, volumePermissions,
]
agent: [existingSecret, extraEnv, image, persistence, resources, secret, secretFiles]
image: [digest, pullPolicy, repository, tag]
persistence: [
  accessMode, annotations, enabled, existingClaim, keep, matchExpressions, matchLabels, mountPath, reinstall, selector,
  size, storageClass, volumeName, volumeType,
]
serviceAccount: [annotations, create, name]
{{- end -}}
