/** An old start script, read by the engines' own flag readers. */
import { useKept } from "../../lib/hooks.js";
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Field } from "../../components/field.js";
import { FileButton } from "../../components/file_button.js";

const EXAMPLE = "#!/bin/bash\nnohup vllm serve Qwen/Qwen3-8B --port 8000 --max-model-len 8192 > vllm.log 2>&1 &";

export function ScriptForm({ busy, onPlan }) {
  const [script, setScript] = useKept("deploy.script", "");
  const [variables, setVariables] = useKept("deploy.variables", "");
  const submit = (event) => {
    event.preventDefault();
    const set = Object.fromEntries(variables.split("\n").filter((line) => line.includes("="))
      .map((line) => [line.slice(0, line.indexOf("=")).trim(), line.slice(line.indexOf("=") + 1)]));
    void onPlan({ script, ...(Object.keys(set).length ? { set } : {}) });
  };
  return html`<form class="card card-body stack" onSubmit=${submit}>
    <${Field} name="deploy-script" label=${t("Start script or command line")} hint=${t("It is read, never run.")} control=${(tied) => html`
      <textarea ...${tied} class="input code" rows="10" spellcheck="false" placeholder=${EXAMPLE} value=${script}
        onInput=${(event) => setScript(event.target.value)}></textarea>`} />
    <${Field} name="deploy-set" label=${t("Variables that it is started with")} hint=${t("NAME=value, one a line.")} control=${(tied) => html`
      <textarea ...${tied} class="input code" rows="2" spellcheck="false" placeholder="PORT=8000" value=${variables}
        onInput=${(event) => setVariables(event.target.value)}></textarea>`} />
    <div class="row">
      <${FileButton} label=${t("Choose a file")} onFiles=${async ([file]) => setScript(await file.text())} />
      <button class="button primary end" disabled=${busy || !script.trim()}>${t("Plan")}</button>
    </div>
  </form>`;
}
