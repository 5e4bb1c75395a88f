/** The plan: does it fit, why, and what would be written into yibu.yaml. */
import { ask } from "../../lib/api.js";
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { attempt } from "../../lib/toasts.js";
import { Copy } from "../../components/copy.js";
import { Diff } from "../../components/diff.js";
import { Notice } from "../../components/notice.js";
import { Arithmetic, Rows } from "./arithmetic.js";
import { Verdict } from "./verdict.js";

function FileChange({ plan }) {
  const { file } = plan;
  return html`<section class="card" aria-labelledby="file-title">
    <div class="card-head"><h2 id="file-title" class="grow">${t("Change of the configuration")}</h2><${Copy} text=${plan.yaml} label=${t("Copy the YAML")} showLabel /></div>
    <div class="card-body stack tight">
      ${!file ? html`<${Notice} kind="warn">${t("The configuration file is no YAML as it stands, so that nothing can be added. Correct it first, or add this by hand.")}<//>
          <pre class="block" tabindex="0" aria-label=${t("YAML of the models")}>${plan.yaml}</pre>`
      : html`<span class="small muted mono">${file.path}</span>
          ${file.diff ? html`<${Diff} text=${file.diff} />` : html`<p class="muted">${t("The file has this already.")}</p>`}`}
    </div>
  </section>`;
}

export function Plan({ plan, onJob, onBack }) {
  const [busy, setBusy] = useState(false);
  const deploy = async () => {
    setBusy(true);
    await attempt(async () => {
      const { text, sha256 } = plan.file;
      onJob(await ask("console/api/config/apply", { method: "POST", json: { text, sha256 } }));
    });
    setBusy(false);
  };
  return html`<div class="stack">
    <${Verdict} plan=${plan} />
    ${plan.warnings.map((text) => html`<${Notice} kind="warn" key=${text}>${text}<//>`)}
    ${plan.secrets.length > 0 && html`<${Notice} kind="warn">${t("The script holds secrets, which are left out: {names}", { names: plan.secrets.join(", ") })}<//>`}
    ${plan.notes.length > 0 && html`<${Notice}>${plan.notes.join("\n")}<//>`}
    <div class="columns">
      <div class="stack">
        ${plan.models.map((model) => html`<${Arithmetic} key=${model.model} model=${model} />`)}
        <${MachineFacts} rows=${plan.machine} />
      </div>
      <${FileChange} plan=${plan} />
    </div>
    <div class="row">
      <button type="button" class="button" onClick=${onBack}>${t("Back")}</button>
      <button type="button" class=${`button end ${plan.fits ? "primary" : "danger"}`} disabled=${busy || !plan.file} onClick=${deploy}>
        ${plan.fits ? t("Deploy") : t("Deploy all the same")}</button>
    </div>
  </div>`;
}

function MachineFacts({ rows }) {
  return html`<section class="card" aria-labelledby="machine-title">
    <div class="card-head"><h2 id="machine-title">${t("Machine")}</h2></div>
    <${Rows} rows=${rows} />
  </section>`;
}
