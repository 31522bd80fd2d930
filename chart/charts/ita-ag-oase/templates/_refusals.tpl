{{/* What could never be installed, or would never find its store: told while nothing has been changed yet. */}}
{{- define "ita-ag-oase.refuse" -}}
{{- if not .Values.agents -}}
{{- fail "\n\nita-ag-oase.agents names no agent: write at least one, with extraEnv and secret, as `helm show values` shows it" -}}
{{- end -}}
{{- $paths := include "ita-ag-oase.paths" . | fromJson -}}
{{- $mounted := list $paths.storage $paths.home $paths.tmp -}}
{{- range .Values.extraVolumeMounts -}}
{{-   $mounted = append $mounted .mountPath -}}
{{- end -}}
{{- range $agent := include "ita-ag-oase.agents" . | fromJsonArray -}}
{{-   $store := $agent.params.STORAGEPATH | default $agent.secret.STORAGEPATH | default $paths.storage -}}
{{-   $isMounted := false -}}
{{-   range $mounted -}}
{{-     $isMounted = or $isMounted (hasPrefix (printf "%s/" (trimSuffix "/" .)) (printf "%s/" $store)) -}}
{{-   end -}}
{{-   if not $isMounted -}}
{{-     fail (printf
        "\n\nSTORAGEPATH of ita-ag-oase.agents[%d] is %s, but the volume is mounted at %s: leave STORAGEPATH out, or write the same path in ita-ag-oase.persistence.mountPath.storage" (int $agent.index) $store $paths.storage) -}}
{{-   end -}}
{{- end -}}
{{- include "ita-ag-oase.refuseOverlap" . -}}
{{- include "ita-ag-oase.refuseSharedVolume" . -}}
{{- if include "ita-ag-oase.isDoubled" . -}}
{{-   include "ita-ag-oase.refuseStandby" . -}}
{{- end -}}
{{- end -}}

{{/*
Pods of before that would meet those of now and could not tell: helm starts the new Deployments before it ends the old
ones, which have stores of their own; and a pod that takes part in no election holds the store, for which the new one
would wait while the rollout waits for the new one. Without a cluster, as in `helm template`, nothing is found.
*/}}
{{- define "ita-ag-oase.refuseOverlap" -}}
{{- if .Release.IsUpgrade -}}
{{- $names := list -}}
{{- if include "ita-ag-oase.isSpread" . -}}
{{-   $names = list (include "ita-ag-oase.name" .) -}}
{{- else -}}
{{-   range $agent := include "ita-ag-oase.agents" . | fromJsonArray -}}
{{-     $names = append $names (include "ita-ag-oase.deploymentName" (dict "root" $ "agent" $agent)) -}}
{{-   end -}}
{{- end -}}
{{- range $name := $names -}}
{{-   include "ita-ag-oase.refuseRunning" (dict "root" $ "name" $name "because" "of another layout") -}}
{{- end -}}
{{- if include "ita-ag-oase.isDoubled" . -}}
{{-   range $deployment := include "ita-ag-oase.deployments" . | fromJsonArray -}}
{{-     include "ita-ag-oase.refuseRunning" (dict "root" $ "name" $deployment.name "because" "without highAvailability") -}}
{{-   end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Takes {root, name, because}. */}}
{{- define "ita-ag-oase.refuseRunning" -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace .name -}}
{{- if $live -}}
{{-   $isOwn := eq (dig "app.kubernetes.io/instance" "" ($live.metadata.labels | default dict)) .root.Release.Name -}}
{{-   $takesPart := false -}}
{{-   range $container := $live.spec.template.spec.containers -}}
{{-     range $container.env -}}
{{-       $takesPart = or $takesPart (eq .name "LEADER_ELECTION") -}}
{{-     end -}}
{{-   end -}}
{{-   $isFine := and $takesPart (eq .because "without highAvailability") -}}
{{-   if and $isOwn (not $isFine) (gt (int $live.spec.replicas) 0) -}}
{{-     fail (printf
        "\n\nthe pods of deployment %s, %s, would be at work beside the new ones: run `kubectl scale deployment %s --namespace %s --replicas=0`, wait until they are gone, and upgrade then" .name .because .name .root.Release.Namespace) -}}
{{-   end -}}
{{- end -}}
{{- end -}}

{{/* A volume goes to one claim. */}}
{{- define "ita-ag-oase.refuseSharedVolume" -}}
{{- $volumes := list -}}
{{- range $deployment := include "ita-ag-oase.deployments" . | fromJsonArray -}}
{{-   if and $deployment.component $deployment.isClaimMade -}}
{{-     $said := include "ita-ag-oase.ownPersistence" (dict "root" $ "deployment" $deployment) | fromYaml -}}
{{-     if has ($said.volumeName | default "") (without $volumes "") -}}
{{-       fail (printf
          "\n\nwith ita-ag-oase.layout pod-per-agent each agent has a volume of its own, and %q would be that of two: write another volumeName for each, in ita-ag-oase.agents[].persistence" $said.volumeName) -}}
{{-     end -}}
{{-     $volumes = append $volumes ($said.volumeName | default "") -}}
{{-   end -}}
{{- end -}}
{{- end -}}

{{/* What pods that stand by cannot do without: a store that the next one finds, on any node, and an agent that waits. */}}
{{- define "ita-ag-oase.refuseStandby" -}}
{{- if not (include "ita-ag-oase.isKept" .) -}}
{{-   fail "\n\nita-ag-oase.highAvailability needs a volume, from which the next pod goes on: turn ita-ag-oase.persistence.enabled on" -}}
{{- end -}}
{{- range $deployment := include "ita-ag-oase.deployments" . | fromJsonArray -}}
{{-   $said := $.Values.persistence -}}
{{-   $of := "" -}}
{{-   if $deployment.component -}}
{{-     $said = include "ita-ag-oase.ownPersistence" (dict "root" $ "deployment" $deployment) | fromYaml -}}
{{-     $of = printf " of ita-ag-oase.agents[%d]" (int (first $deployment.agents).index) -}}
{{-   end -}}
{{-   $mode := $said.accessMode | default "ReadWriteMany" -}}
{{-   if and $deployment.isClaimMade (ne $mode "ReadWriteMany") -}}
{{-     fail (printf
        "\n\nita-ag-oase.highAvailability needs a volume that two nodes can use at once, and persistence.accessMode%s is %s: write ReadWriteMany and a storage class that has such volumes, or name a claim that has one in persistence.existingClaim" $of $mode) -}}
{{-   end -}}
{{-   range $agent := $deployment.agents -}}
{{-     if not $agent.isKnown -}}
{{-       fail (printf
          "\n\nita-ag-oase.highAvailability needs agents that wait for each other, and whether %s of ita-ag-oase.agents[%d] is this agent (2.7.1 or later) cannot be told from its tag: leave image.tag empty, or write such a version" $agent.image (int $agent.index)) -}}
{{-     end -}}
{{-   end -}}
{{- end -}}
{{- end -}}
