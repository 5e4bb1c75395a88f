/** What the machine does, and what runs on it. */
import { useTitle } from "../../lib/hooks.js";
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { compact, duration, number } from "../../lib/format.js";
import { overview } from "../../lib/live.js";
import { link } from "../../lib/router.js";
import { useStore } from "../../lib/store.js";
import { Icon } from "../../components/icon.js";
import { Copy } from "../../components/copy.js";
import { Empty, Spinner } from "../../components/notice.js";
import { Jobs } from "./jobs.js";
import { Machine } from "./machine.js";
import { ModelRow } from "./model_row.js";
import { StoppedModels } from "./stopped_models.js";

export function Overview() {
  useTitle(t("Overview"));
  const now = useStore(overview);
  if (!now) return html`<div class="loading"><${Spinner} label=${t("Asking the node")} /></div>`;
  return html`<div class="page">
    <div class="page-head"><h1>${t("Overview")}</h1>
      <span class="muted row">${now.gateway.url}<${Copy} text=${`${now.gateway.url}/v1`} label=${t("Copy the API's address")} /></span>
      <span class="muted end">${t("up for {duration}", { duration: duration(now.time - now.node.started) })}</span>
      <a class="button primary" href=${link("deploy")}><${Icon} name="plus" size=${14} />${t("Deploy a model")}</a></div>
    <${Machine} machine=${now.machine} />
    <${Totals} totals=${now.totals} />
    <${Models} models=${now.models} />
    ${now.stopped.length > 0 && html`<${StoppedModels} models=${now.stopped} />`}
    <${Jobs} jobs=${now.jobs} />
  </div>`;
}

function Totals({ totals }) {
  const rows = [
    [t("Requests/s"), number(totals.requests_per_second, 1)],
    [t("Tokens out/s"), compact(totals.output_tokens_per_second)],
    [t("Tokens in/s"), compact(totals.prompt_tokens_per_second)],
    [t("In flight"), number(totals.in_flight)],
    [t("Queued"), number(totals.queued)],
    [t("Errors/s"), number(totals.errors_per_second, 2), totals.errors_per_second > 0],
  ];
  return html`<dl class="totals card">
    ${rows.map(([label, value, bad]) => html`<div key=${label}><dt>${label}</dt>
      <dd class=${bad ? "bad" : ""}>${value}</dd></div>`)}
  </dl>`;
}

const failedFirst = (models) => [...models].sort(
  (one, other) => (other.state === "failed") - (one.state === "failed"),
);

function Models({ models }) {
  if (!models.length) {
    return html`<section class="card" aria-label=${t("Models")}><${Empty} icon="deploy">
      <p>${t("Nothing is served yet.")}</p>
      <a class="button primary" href=${link("deploy")}>${t("Deploy the first model")}</a><//></section>`;
  }
  return html`<section class="card" aria-labelledby="models-title">
    <div class="card-head"><h2 id="models-title">${t("Models")}</h2><span class="muted small">${number(models.length)}</span></div>
    <ul class="models">${failedFirst(models).map((model) => html`<${ModelRow} key=${model.name} model=${model} />`)}</ul>
  </section>`;
}
