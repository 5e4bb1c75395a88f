/** From a name to a running model: what it is, the plan, the file, then its start. */
import { useKept, useTitle } from "../../lib/hooks.js";
import { ask } from "../../lib/api.js";
import { attempt } from "../../lib/toasts.js";
import { Icon } from "../../components/icon.js";
import { html, useRef } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Segmented } from "../../components/field.js";
import { Notice, Spinner } from "../../components/notice.js";
import { Catalogue } from "./catalogue.js";
import { Deployment } from "./deployment.js";
import { Download } from "./download.js";
import { ModelForm, emptyForm } from "./model_form.js";
import { Plan } from "./plan.js";
import { ScriptForm } from "./script_form.js";

const NOT_PULLED = "not_pulled";
let asking = null;

export function Deploy() {
  useTitle(t("Deploy"));
  const [from, setFrom] = useKept("deploy.from", "model");
  const [form, setForm] = useKept("deploy.form", emptyForm);
  const [plan, setPlan] = useKept("deploy.plan", { state: "none" });
  const [job, setJob] = useKept("deploy.job", null);
  const [pull, setPull] = useKept("deploy.pull", null);
  const [asked, setAsked] = useKept("deploy.asked", null);
  const result = useRef(null);

  async function askForPlan(body) {
    asking?.abort();
    const aborter = new AbortController();
    asking = aborter;
    setAsked(body);
    setPlan({ state: "asking" });
    setJob(null);
    setPull(null);
    try {
      const found = await ask("console/api/plan", { method: "POST", json: body, signal: aborter.signal });
      setPlan({ state: "found", ...found });
      requestAnimationFrame(() => result.current?.focus());
    } catch (error) {
      if (!aborter.signal.aborted) setPlan({ state: "failed", error });
    }
  }

  const download = () => attempt(async () =>
    setPull(await ask("console/api/pull", { method: "POST", json: { model: asked.model } })));
  const begin = () => {
    setPlan({ state: "none" });
    setJob(null);
    setForm(emptyForm);
  };
  const choose = (model) => setForm({ ...emptyForm, model: model.name });
  return html`<div class="page">
    <div class="page-head"><h1>${t("Deploy")}</h1>
      <${Segmented} label=${t("From")} value=${from} onValue=${setFrom}
        options=${[["model", t("A model")], ["script", t("A start script")]]} /></div>
    ${from === "model" ? html`
        <${ModelForm} form=${form} onForm=${setForm} busy=${plan.state === "asking"} onPlan=${askForPlan} />
        ${plan.state === "none" && html`<${Catalogue} query=${form.model} onChoose=${choose} />`}`
    : html`<${ScriptForm} busy=${plan.state === "asking"} onPlan=${askForPlan} />`}
    ${plan.state === "asking" && html`<div class="loading"><${Spinner} label=${t("Reading the model's headers")} /></div>`}
    ${plan.state === "failed" && (pull ? html`<${Download} job=${pull} onDone=${() => askForPlan(asked)} />`
      : html`<${Notice} kind=${plan.error.code === NOT_PULLED ? "warn" : "bad"}>${plan.error.message}<//>
        ${plan.error.code === NOT_PULLED && html`<div><button type="button" class="button primary" onClick=${download}>
          <${Icon} name="download" size=${14} />${t("Download it, then plan")}</button></div>`}`)}
    ${plan.state === "found" && html`<div ref=${result} tabindex="-1" class="stack">
      ${job ? html`<${Deployment} job=${job} names=${plan.models.map((one) => one.model)} onAnother=${begin} />`
      : html`<${Plan} plan=${plan} onJob=${setJob} onBack=${() => setPlan({ state: "none" })} />`}</div>`}
  </div>`;
}
