/** A model's replicas, and how long its start took. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { bytes, number, seconds } from "../../lib/format.js";
import { link } from "../../lib/router.js";
import { State, pastPhaseText } from "../../components/state.js";
import { keepText } from "./actions.js";

export function Replicas({ model }) {
  const phases = Object.entries(model.phases ?? {});
  return html`<div class="model-more stack tight">
    <div class="table-wrap" tabindex="0" role="group" aria-label=${t("Replicas of {model}", { model: model.name })}>
      <table class="table"><thead><tr>
      <th scope="col">${t("Replica")}</th><th scope="col">${t("State")}</th><th scope="col" class="number">${t("Process")}</th>
      <th scope="col" class="number">${t("In flight")}</th><th scope="col" class="number">${t("Memory")}</th>
      <th scope="col">${t("GPUs")}</th><th scope="col" class="number">${t("GPU memory")}</th>
      <th scope="col" class="number">${t("Restarts")}</th></tr></thead>
      <tbody>${model.replicas.map((one) => html`<tr key=${one.id}>
        <td><a href=${link("logs", one.id)}>${one.id}</a></td>
        <td><${State} state=${one.state} phase=${one.phase} /></td>
        <td class="number">${one.pid ?? "–"}</td><td class="number">${number(one.in_flight)}</td>
        <td class="number">${bytes(one.memory_bytes)}</td><td>${one.gpus.length ? one.gpus.join(", ") : "–"}</td>
        <td class="number">${one.gpus.length ? bytes(one.gpu_memory_bytes) : "–"}</td><td class="number">${number(one.restarts)}</td>
      </tr>`)}</tbody></table></div>
    <dl class="facts small">
      <div><dt>${t("Names")}</dt><dd>${[model.name, ...model.names.filter((one) => one !== model.name)].join(", ")}</dd></div>
      <div><dt>${t("Can")}</dt><dd>${model.capabilities.join(", ") || "–"}</dd></div>
      ${model.max_context !== null && html`<div><dt>${t("Context length")}</dt><dd>${t("{count} tokens", { count: model.max_context })}</dd></div>`}
      <div><dt>${t("Kept")}</dt><dd>${keepText(model)}</dd></div>
      ${phases.length > 0 && html`<div><dt>${t("Start took")}</dt>
        <dd>${phases.map(([phase, time]) => t("{phase} {time}", { phase: pastPhaseText(phase), time: seconds(time) })).join(" · ")}</dd></div>`}
      ${model.file && html`<div><dt>${t("File")}</dt><dd>${model.file}</dd></div>`}
    </dl>
  </div>`;
}
