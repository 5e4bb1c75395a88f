/** An old start script, read by the engines' own flag readers. */
import { html, useRef, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Field } from "../../components/field.js";

const EXAMPLE = "#!/bin/bash\nnohup vllm serve Qwen/Qwen3-8B --port 8000 --max-model-len 8192 > vllm.log 2>&1 &";

export function ScriptForm({ busy, onPlan }) {
  const [script, setScript] = useState("");
  const [variables, setVariables] = useState("");
  const picker = useRef(null);
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
      <button type="button" class="button" onClick=${() => picker.current.click()}>${t("Choose a file")}</button>
      <input ref=${picker} type="file" hidden aria-label=${t("Choose a file")}
        onChange=${async (event) => event.target.files[0] && setScript(await event.target.files[0].text())} />
      <button class="button primary end" disabled=${busy || !script.trim()}>${t("Plan")}</button>
    </div>
  </form>`;
}
