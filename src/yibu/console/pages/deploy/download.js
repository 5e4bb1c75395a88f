/** A download on its way, which goes on when the page is left. */
import { html, useEffect } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { cancel } from "../../lib/jobs.js";
import { overview } from "../../lib/live.js";
import { useStore } from "../../lib/store.js";
import { Notice, Spinner } from "../../components/notice.js";
import { Progress } from "../overview/progress.js";

/** `onDone` is called once the files are here. */
export function Download({ job, onDone }) {
  const latest = useStore(overview)?.jobs.find((one) => one.id === job.id) ?? job;
  const isDone = latest.ended !== null && !latest.error;
  useEffect(() => {
    if (isDone) onDone();
  }, [isDone]);
  return html`<section class="card" aria-labelledby="download-title">
    <div class="card-head"><h2 id="download-title" class="grow truncate">${t("Download of {model}", { model: job.models[0] })}</h2>
      ${!latest.ended && html`<button type="button" class="button small" onClick=${() => cancel(latest)}>${t("Cancel")}</button>`}</div>
    <div class="card-body stack">
      ${latest.progress && !latest.ended && html`<${Progress} progress=${latest.progress} />`}
      ${!latest.progress && !latest.ended && html`<${Spinner} label=${t("Asking the hub")} />`}
      ${latest.error && html`<${Notice} kind="bad"><strong>${latest.error.message}</strong> ${latest.error.hint}<//>`}
    </div>
  </section>`;
}
