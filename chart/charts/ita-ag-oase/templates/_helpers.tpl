{{/*
Names, labels and values to the letter.

For all templates here: in Helm 3.9, `and` and `or` look at all they are given, also where the first decides, and `eq`
refuses to compare nothing with something.
*/}}

{{/* The name of the Deployment, and the beginning of all other names. */}}
{{- define "ita-ag-oase.name" -}}
{{- $name := .Values.nameOverride | default .Chart.Name | toString | trunc 63 | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{-   fail (printf
        "\n\nita-ag-oase.nameOverride is %q, which is no name in Kubernetes: write lower-case letters, digits and -, a letter or digit first and last"
        (toString .Values.nameOverride)) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* What the Deployment finds its pods by. It can never be changed, so nothing may be added. */}}
{{- define "ita-ag-oase.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ita-ag-oase.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* The labels of every object. Pods have the selector's alone, or each new chart would replace them. */}}
{{- define "ita-ag-oase.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{ include "ita-ag-oase.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end -}}

{{/* The name label of what runs the check: another than the agents', so that no selector takes it for one of them. */}}
{{- define "ita-ag-oase.checkName" -}}
{{ printf "%s-check" (include "ita-ag-oase.name" . | trunc 57 | trimSuffix "-") }}
{{- end -}}

{{/*
A value as text, to the letter. Helm reads numbers as floating point, which would come out as 1.23e+09; JSON writes them
in full. Beyond 2^53 digits are lost before any template sees them.
*/}}
{{- define "ita-ag-oase.text" -}}
{{- if kindIs "float64" .value -}}
{{-   if or (gt .value 9007199254740991.0) (lt .value -9007199254740991.0) -}}
{{-     fail (printf "\n\n%s is a number of more digits than Helm can read: write it in quotes" .where) -}}
{{-   end -}}
{{- end -}}
{{- if kindIs "string" .value -}}
{{- .value -}}
{{- else if not (kindIs "invalid" .value) -}}
{{- toJson .value -}}
{{- end -}}
{{- end -}}

{{/* A map of values as texts. Takes {where, values}. */}}
{{- define "ita-ag-oase.texts" -}}
{{- $texts := dict -}}
{{- range $key, $value := .values -}}
{{-   $_ := set $texts $key (include "ita-ag-oase.text" (dict "where" (printf "%s.%s" $.where $key) "value" $value)) -}}
{{- end -}}
{{- toJson $texts -}}
{{- end -}}

{{/* Where things are mounted: storage, home and tmp. */}}
{{- define "ita-ag-oase.paths" -}}
{{- $given := (.Values.persistence | default dict).mountPath | default dict -}}
{{- $paths := dict
      "storage" ($given.storage | default "/storage")
      "home" ($given.homeDir | default "/home/app_user")
      "tmp" ($given.tmp | default "/tmp") -}}
{{- toJson $paths -}}
{{- end -}}

{{- define "ita-ag-oase.isKept" -}}
{{- if (.Values.persistence | default dict).enabled }}true{{ end -}}
{{- end -}}
