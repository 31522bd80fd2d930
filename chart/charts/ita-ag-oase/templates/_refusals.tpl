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
{{- end -}}
