{{/*
The agents with everything decided, as a JSON list, so that each object is written from the same facts. Of each:

  index                  where it stands in the list
  place                  where it stands among those of its pod
  name                   of its container and objects
  image, pullPolicy
  params, secret         its variables, as texts
  existingSecret, secretFiles, resources
  port                   of its status page; 0 where there is none
  isKnown                whether the image is surely this agent
  isWatched              whether Kubernetes can ask the status page
*/}}
{{- define "ita-ag-oase.agents" -}}
{{- $agents := list -}}
{{- $names := include "ita-ag-oase.agentNames" . | fromJsonArray -}}
{{- range $index, $given := .Values.agents -}}
{{-   $image := include "ita-ag-oase.image" (dict "root" $ "image" ($given.image | default dict)) | fromJson -}}
{{-   $place := ternary 0 $index (eq (include "ita-ag-oase.isSpread" $) "true") -}}
{{-   $facts := dict "root" $ "index" $index "place" $place "agent" $given "name" (index $names $index) -}}
{{-   $variables := include "ita-ag-oase.variables" $facts | fromJson -}}
{{-   $effective := merge (dict) $variables.secret $variables.params -}}
{{-   $port := $effective.STATUS_PORT | default "9879" | int -}}
{{-   $isReachable := not (regexMatch "^(127[.].*|::1)$" ($effective.STATUS_ADDRESS | default "127.0.0.1")) -}}
{{-   $agents = append $agents (dict
        "index" $index
        "place" $place
        "name" (index $names $index)
        "image" $image.name
        "pullPolicy" $image.pullPolicy
        "isKnown" $image.isKnown
        "params" $variables.params
        "secret" $variables.secret
        "existingSecret" ($given.existingSecret | default "")
        "secretFiles" ($given.secretFiles | default dict)
        "resources" ($given.resources | default dict)
        "port" $port
        "isWatched" (and $image.isKnown $isReachable (ne $port 0))) -}}
{{- end -}}
{{- toJson $agents -}}
{{- end -}}

{{/*
The agents' names, as a JSON list: <name>-<AGENT_NAME>, cut at 63. Where that is no name in Kubernetes, or two come out
alike by the cut, it is made one, and a hash keeps them apart. Names that worked stay: people's commands hold them.
*/}}
{{- define "ita-ag-oase.agentNames" -}}
{{- $raw := list -}}
{{- $plain := list -}}
{{- range $index, $given := .Values.agents -}}
{{-   $where := printf "ita-ag-oase.agents[%d].extraEnv.AGENT_NAME" $index -}}
{{-   $agentName := include "ita-ag-oase.text" (dict "where" $where "value" ($given.extraEnv | default dict).AGENT_NAME) -}}
{{-   if has $agentName $raw -}}
{{-     fail (printf
        "\n\ntwo entries of ita-ag-oase.agents have the AGENT_NAME %q: write another one for each, in extraEnv.AGENT_NAME"
        $agentName) -}}
{{-   end -}}
{{-   $raw = append $raw $agentName -}}
{{-   $plain = append $plain (printf "%s-%s" (include "ita-ag-oase.name" $) $agentName | trunc 63 | trimSuffix "-") -}}
{{- end -}}
{{- $names := list -}}
{{- range $index, $name := $plain -}}
{{-   $isValid := regexMatch "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" $name -}}
{{-   $isSingle := not (has $name (concat (slice $plain 0 $index) (slice $plain (add1 $index | int)))) -}}
{{-   if not (and $isValid $isSingle) -}}
{{-     $readable := regexReplaceAll "[^a-z0-9-]+" (lower $name) "-" | trunc 54 | trimAll "-" -}}
{{-     $name = printf "%s-%s" $readable (index $raw $index | sha256sum | trunc 8) -}}
{{-   end -}}
{{-   $names = append $names $name -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* An image's name and pullPolicy, and whether it is surely this agent and not the one that it replaces. */}}
{{- define "ita-ag-oase.image" -}}
{{- $global := ((.root.Values.global | default dict).agentGlobalDefinition | default dict).image | default dict -}}
{{- $usual := printf "%s/%s/%s-ag-oase"
      ($global.registry | default "docker.io")
      ($global.organization | default "exastro")
      ($global.package | default "exastro-it-automation") -}}
{{- $repository := .image.repository | default $usual -}}
{{- $tag := .image.tag | default .root.Chart.AppVersion | toString -}}
{{- $name := printf "%s:%s" $repository $tag -}}
{{- with .image.digest -}}
{{-   $name = printf "%s@%s" $repository . -}}
{{- end -}}
{{- $policy := .image.pullPolicy | default "IfNotPresent" -}}
{{- $image := dict
      "name" $name
      "pullPolicy" (ternary "Never" $policy (eq $policy "None"))
      "isKnown" (eq (include "ita-ag-oase.isKnownTag" $tag) "true") -}}
{{- toJson $image -}}
{{- end -}}

{{/* Whether a tag is a version that this project has made: the first one or a later one. */}}
{{- define "ita-ag-oase.isKnownTag" -}}
{{- if regexMatch "^v?[0-9]+([.][0-9]+){2}([-+].*)?$" . -}}
{{- semverCompare ">=2.7.1-0" . -}}
{{- end -}}
{{- end -}}

{{/* An agent's variables, as texts: {params, secret}. What the chart adds stands back behind what was written. */}}
{{- define "ita-ag-oase.variables" -}}
{{- $where := printf "ita-ag-oase.agents[%d]" .index -}}
{{- $params := include "ita-ag-oase.texts" (dict "where" (printf "%s.extraEnv" $where) "values" .agent.extraEnv) | fromJson -}}
{{- $secret := include "ita-ag-oase.texts" (dict "where" (printf "%s.secret" $where) "values" .agent.secret) | fromJson -}}
{{- range $key, $value := include "ita-ag-oase.ownVariables" . | fromJson -}}
{{-   if not (or (hasKey $params $key) (hasKey $secret $key)) -}}
{{-     $_ := set $params $key $value -}}
{{-   end -}}
{{- end -}}
{{- dict "params" $params "secret" $secret | toJson -}}
{{- end -}}

{{/*
What the chart adds to an agent's variables. A pod's own name is another one after each start, so it is no agent's name
where the store outlives the pod; where it does not, each pod is a new agent to Exastro.
*/}}
{{- define "ita-ag-oase.ownVariables" -}}
{{- $paths := include "ita-ag-oase.paths" .root | fromJson -}}
{{- $own := dict "STATUS_ADDRESS" "0.0.0.0" "STATUS_PORT" (toString (add 9879 .place)) -}}
{{- if include "ita-ag-oase.isKept" .root -}}
{{-   $_ := set $own "AGENT_ID" (printf "%s.%s" .name .root.Release.Namespace) -}}
{{- end -}}
{{- if ne $paths.storage "/storage" -}}
{{-   $_ := set $own "STORAGEPATH" $paths.storage -}}
{{- end -}}
{{- $bundle := .root.Values.caBundle | default dict -}}
{{- if or $bundle.configMap $bundle.secret -}}
{{-   $_ := set $own "EXASTRO_CA_FILE" "/etc/exastro/ca/ca.crt" -}}
{{-   $_ := set $own "SOURCE_CA_FILE" "/etc/exastro/ca/ca.crt" -}}
{{- end -}}
{{- range $variable, $_ := .agent.secretFiles -}}
{{-   $_ := set $own $variable (printf "/etc/exastro/secrets/%s" $variable) -}}
{{- end -}}
{{- toJson $own -}}
{{- end -}}
