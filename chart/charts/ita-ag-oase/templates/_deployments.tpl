{{/*
The Deployments with everything decided, as a JSON list: one for all agents or, with the layout pod-per-agent, one for
each. Of each:

  name        of itself and of what it alone needs
  component   the label that tells its pods from the others of the release; empty where there are no others
  agents      those of its pods, as ita-ag-oase.agents has them
  claim       the name of its volume claim; empty without one
  isClaimMade whether the chart makes that claim
  account     the name of its service account
*/}}
{{- define "ita-ag-oase.deployments" -}}
{{- $agents := include "ita-ag-oase.agents" . | fromJsonArray -}}
{{- $deployments := list -}}
{{- if include "ita-ag-oase.isSpread" . -}}
{{-   range $agent := $agents -}}
{{-     $name := include "ita-ag-oase.deploymentName" (dict "root" $ "agent" $agent) -}}
{{-     $deployments = append $deployments (dict "name" $name "component" $name "agents" (list $agent)) -}}
{{-   end -}}
{{- else -}}
{{-   $deployments = list (dict "name" (include "ita-ag-oase.name" .) "component" "" "agents" $agents) -}}
{{- end -}}
{{- range $deployment := $deployments -}}
{{-   $_ := set $deployment "account" (include "ita-ag-oase.serviceAccountName" (dict "root" $ "deployment" $deployment)) -}}
{{-   $existing := ($.Values.persistence | default dict).existingClaim -}}
{{-   if $deployment.component -}}
{{-     $own := (index $.Values.agents (int (first $deployment.agents).index)).persistence | default dict -}}
{{-     $existing = $own.existingClaim | default $existing -}}
{{-   end -}}
{{-   $isKept := eq (include "ita-ag-oase.isKept" $) "true" -}}
{{-   $claim := $existing | default (include "ita-ag-oase.claimName" $deployment) -}}
{{-   $_ := set $deployment "claim" (ternary $claim "" $isKept) -}}
{{-   $_ := set $deployment "isClaimMade" (and $isKept (empty $existing)) -}}
{{- end -}}
{{- toJson $deployments -}}
{{- end -}}

{{/* Whether each agent has a Deployment of its own. */}}
{{- define "ita-ag-oase.isSpread" -}}
{{- if eq (.Values.layout | default "one-pod") "pod-per-agent" }}true{{ end -}}
{{- end -}}

{{/* Whether pods stand by. */}}
{{- define "ita-ag-oase.isDoubled" -}}
{{- if (.Values.highAvailability | default dict).enabled }}true{{ end -}}
{{- end -}}

{{/*
The name of an agent's own Deployment: the agent's. Where that is the name of the Deployment of all agents, it gets a
hash: with another selector, the one cannot take the other's place. Takes {root, agent}.
*/}}
{{- define "ita-ag-oase.deploymentName" -}}
{{- $name := .agent.name -}}
{{- if eq $name (include "ita-ag-oase.name" .root) -}}
{{-   $name = printf "%s-%s" ($name | trunc 54 | trimSuffix "-") ($name | sha256sum | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The name of the claim that the chart makes. One of an agent's own fits into a label, which storage may make of it. */}}
{{- define "ita-ag-oase.claimName" -}}
{{- $name := printf "pvc-%s" .name -}}
{{- if and .component (gt (len $name) 63) -}}
{{-   $name = printf "%s-%s" ($name | trunc 54 | trimSuffix "-") (.name | sha256sum | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* What a Deployment's pods are found by. It can never be changed. Takes {root, deployment}. */}}
{{- define "ita-ag-oase.podLabels" -}}
{{ include "ita-ag-oase.selectorLabels" .root }}
{{- with .deployment.component }}
app.kubernetes.io/component: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* What is said about the claim of an agent's own: what was written for it, before what was written for all. */}}
{{- define "ita-ag-oase.ownPersistence" -}}
{{- $said := dict -}}
{{- range $key, $value := .root.Values.persistence -}}
{{-   $_ := set $said $key $value -}}
{{- end -}}
{{- range $key, $value := (index .root.Values.agents (int (first .deployment.agents).index)).persistence -}}
{{-   $_ := set $said $key $value -}}
{{- end -}}
{{- toYaml $said -}}
{{- end -}}

{{- define "ita-ag-oase.serviceAccountName" -}}
{{- $account := .root.Values.serviceAccount | default dict -}}
{{- if $account.name -}}
{{- $account.name -}}
{{- else if include "ita-ag-oase.isDoubled" .root -}}
{{- .deployment.name -}}
{{- else if eq (toString $account.create) "true" -}}
{{- include "ita-ag-oase.name" .root -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{/* The number of pods of each Deployment; empty where it stays what it was made by hand. */}}
{{- define "ita-ag-oase.replicas" -}}
{{- if not (kindIs "invalid" .Values.replicas) -}}
{{- int .Values.replicas -}}
{{- else if include "ita-ag-oase.isDoubled" . -}}
2
{{- end -}}
{{- end -}}

{{/* What was written, and with pods that stand by, that no two of them share a node, which would fail them together. */}}
{{- define "ita-ag-oase.affinity" -}}
{{- $affinity := .root.Values.affinity | default dict -}}
{{- if include "ita-ag-oase.isDoubled" .root -}}
{{-   $apart := dict
        "topologyKey" "kubernetes.io/hostname"
        "labelSelector" (dict "matchLabels" (include "ita-ag-oase.podLabels" . | fromYaml)) -}}
{{-   $required := ($affinity.podAntiAffinity | default dict).requiredDuringSchedulingIgnoredDuringExecution | default list -}}
{{-   $affinity = merge
        (dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (append $required $apart)))
        $affinity -}}
{{- end -}}
{{- if $affinity -}}
affinity:
  {{- toYaml $affinity | nindent 2 }}
{{- end -}}
{{- end -}}
