/** A deployment on its way: download, environment, load, until the model answers. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { overview } from "../../lib/live.js";
import { link } from "../../lib/router.js";
import { useStore } from "../../lib/store.js";
import { Notice, Spinner } from "../../components/notice.js";
import { State } from "../../components/state.js";
import { Progress } from "../overview/progress.js";

export function Deployment({ job, names, onAnother }) {
  const now = useStore(overview);
  const latest = now?.jobs.find((one) => one.id === job.id) ?? job;
  const models = now?.models.filter((model) => names.includes(model.name)) ?? [];
  const can = (what) => models.find((model) => model.capabilities.includes(what));
  const ready = models.length > 0 && models.every((model) => model.state === "ready");
  return html`<section class="card" aria-labelledby="deployment-title" aria-live="polite">
    <div class="card-head"><h2 id="deployment-title" class="grow">${t("Deployment")}</h2>
      ${!latest.ended && !ready && html`<${Spinner} label=${t("running")} />`}</div>
    <div class="card-body stack">
      ${models.map((model) => html`<div class="stack tight" key=${model.name}>
        <div class="row"><strong>${model.name}</strong><${State} state=${model.state} phase=${model.phase} /></div>
        ${model.progress && model.state !== "ready" && html`<${Progress} progress=${model.progress} />`}
        ${model.cause && html`<${Notice} kind="bad"><strong>${model.cause}</strong>${model.hint}<//>`}
      </div>`)}
      ${latest.error && !models.some((model) => model.cause === latest.error.message) && html`<${Notice} kind="bad"><strong>${latest.error.message}</strong>${latest.error.hint}<//>`}
      ${ready && html`<${Notice} kind="ok">${t("Ready: it answers.")}<//>`}
      <div class="row wrap">
        <button type="button" class="button" onClick=${onAnother}>${t("Deploy another model")}</button>
        <a class="button" href=${link("overview")}>${t("Overview")}</a>
        ${names.length === 1 && html`<a class="button" href=${link("logs", names[0])}>${t("Show logs")}</a>`}
        ${ready && can("chat") && html`<a class="button primary" href=${link("chat", can("chat").name)}>${t("Chat with it")}</a>`}
        ${ready && can("transcriptions") && html`<a class="button primary" href=${link("speech", can("transcriptions").name)}>${t("Transcribe with it")}</a>`}
      </div>
    </div>
  </section>`;
}
