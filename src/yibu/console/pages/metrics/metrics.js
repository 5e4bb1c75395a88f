/** The last hour, day and month, as the node keeps them. */
import { useAsked, useTitle } from "../../lib/hooks.js";
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { bytes, compact, number, percent, seconds } from "../../lib/format.js";
import { Segmented } from "../../components/field.js";
import { Empty, Notice, Spinner } from "../../components/notice.js";
import { Plot } from "./plot.js";

const ASK_EVERY_SECONDS = { hour: 10, day: 60, month: 300 };

export function Metrics() {
  useTitle(t("Metrics"));
  const [range, setRange] = useState("hour");
  const [model, setModel] = useState("");
  const { data, error } = useAsked(`console/api/metrics?range=${range}`, ASK_EVERY_SECONDS[range]);
  const names = Object.keys(data?.models ?? {});
  return html`<div class="page">
    <div class="page-head"><h1>${t("Metrics")}</h1>
      <${Segmented} label=${t("Time")} value=${range} onValue=${setRange}
        options=${[["hour", t("Hour")], ["day", t("Day")], ["month", t("Month")]]} />
      ${names.length > 1 && html`<label class="visually-hidden" for="metrics-model">${t("Model")}</label>
        <select id="metrics-model" class="input fit" value=${model} onChange=${(event) => setModel(event.target.value)}>
          <option value="" selected=${model === ""}>${t("all models")}</option>
          ${names.map((name) => html`<option key=${name} value=${name} selected=${model === name}>${name}</option>`)}</select>`}
      <a class="button ghost small end" href=${new URL("metrics", document.baseURI).href}>${t("For Prometheus")}</a></div>
    ${error && html`<${Notice} kind="bad">${error.message}<//>`}
    ${!data && !error && html`<div class="loading"><${Spinner} label=${t("Loading")} /></div>`}
    ${data && data.range === range && (data.points ? html`<${Plots} data=${data} names=${model ? [model] : names} />`
      : html`<div class="card"><${Empty} icon="metrics">${t("Nothing has been measured yet.")}<//></div>`)}
  </div>`;
}

function Plots({ data, names }) {
  const ofModels = (field) => names.map((name) => ({ label: name, values: data.models[name][field] }));
  const ofGpus = (suffix) => Object.keys(data.node).filter((key) => key.startsWith("gpu") && key.endsWith(suffix))
    .map((key) => ({ label: t("GPU {index}", { index: Number(/^gpu(\d+)_/.exec(key)[1]) }), values: data.node[key] }));
  const count = (value) => number(value, 3);
  const plots = [
    [t("Requests a second"), ofModels("requests_per_second"), count],
    [t("Output tokens a second"), ofModels("output_tokens_per_second"), compact],
    [t("Time to the first token, 95th percentile"), ofModels("ttft_p95_seconds"), seconds],
    [t("Duration of requests, 95th percentile"), ofModels("seconds_p95"), seconds],
    [t("Requests in flight"), ofModels("in_flight"), count],
    [t("Queued requests"), ofModels("queued"), count],
    [t("Errors a second"), ofModels("errors_per_second"), count],
    [t("Ready replicas"), ofModels("ready_replicas"), count],
    [t("Processor"), [{ label: t("Processor"), values: data.node.cpu_percent }], (value) => percent(value / 100)],
    [t("Memory"), [{ label: t("Memory"), values: data.node.memory_used_bytes }], bytes],
    [t("GPU memory"), ofGpus("_memory_used_bytes"), bytes],
    [t("GPU load"), ofGpus("_busy_percent"), (value) => percent(value / 100)],
  ];
  const shown = plots.filter(([, series]) => series.some(({ values }) => values?.some((value) => value !== null)));
  if (!shown.length) return html`<div class="card"><${Empty} icon="metrics">${t("Nothing has been measured yet.")}<//></div>`;
  return html`<div class="plots">${shown.map(([title, series, format]) => html`<${Plot} key=${title} title=${title}
    start=${data.start} step=${data.step} points=${data.points} series=${series.filter(({ values }) => values)} format=${format} />`)}</div>`;
}
