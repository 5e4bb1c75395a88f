/** What is to be served, and how. */
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Icon } from "../../components/icon.js";
import { Field, TextField } from "../../components/field.js";

export const emptyForm = { model: "", name: "", engine: "", flags: "", replicas: "1", keep: "", machine: "" };

/** Words as a shell splits them: quotes hold words together. */
export function splitWords(text) {
  const words = text.match(/(?:[^\s"']+|"[^"]*"|'[^']*')+/g) ?? [];
  return words.map((word) => word.replace(/"([^"]*)"|'([^']*)'/g, (_, double, single) => double ?? single));
}

function request(form) {
  return {
    model: form.model.trim(),
    ...(form.name.trim() ? { name: form.name.trim() } : {}),
    ...(form.engine.trim() ? { engine: form.engine.trim() } : {}),
    ...(form.flags.trim() ? { flags: splitWords(form.flags) } : {}),
    ...(form.machine.trim() ? { machine: form.machine.trim() } : {}),
    settings: {
      ...(Number(form.replicas) > 1 ? { replicas: Number(form.replicas) } : {}),
      ...(form.keep ? { keep: form.keep } : {}),
    },
  };
}

export function ModelForm({ form, onForm, busy, onPlan }) {
  const [more, setMore] = useState(() => Object.keys(emptyForm).some((name) => name !== "model" && form[name] !== emptyForm[name]));
  const set = (name) => (value) => onForm({ ...form, [name]: value });
  const submit = (event) => {
    event.preventDefault();
    void onPlan(request(form));
  };
  return html`<form class="card card-body stack" onSubmit=${submit}>
    <div class="row top">
      <div class="grow"><${Field} name="deploy-model" label=${t("Model")} hint=${t("A name of the catalogue, an id of ModelScope (Qwen/Qwen3-0.6B), hf:ORG/NAME for Hugging Face, or a path on this machine.")}
        control=${(tied) => html`<input ...${tied} data-search autocomplete="off" spellcheck="false" value=${form.model}
          placeholder=${t("Search or type an id")} onInput=${(event) => set("model")(event.target.value)} />`} /></div>
      <button class="button primary align-field" disabled=${busy || !form.model.trim()}>${t("Plan")}</button>
    </div>
    <button type="button" class="button ghost small fit expander" aria-expanded=${more} aria-controls="deploy-more" onClick=${() => setMore(!more)}>
      <${Icon} name="chevron" size=${14} />${t("More settings")}</button>
    <div id="deploy-more" class="fields" hidden=${!more}>
      <${TextField} name="deploy-name" label=${t("Served as")} value=${form.name} onValue=${set("name")} placeholder=${t("the model's own name")} />
      <${TextField} name="deploy-engine" label=${t("Engine")} value=${form.engine} onValue=${set("engine")} placeholder=${t("chosen by the model")} />
      <${TextField} name="deploy-replicas" label=${t("Replicas")} type="number" min="1" value=${form.replicas} onValue=${set("replicas")} />
      <${TextField} name="deploy-keep" label=${t("Keep")} value=${form.keep} onValue=${set("keep")} placeholder="always" hint=${t("always, manual, idle, or idle with a time such as idle 15m")} />
      <${TextField} name="deploy-flags" label=${t("Engine flags")} value=${form.flags} onValue=${set("flags")} class="input code"
        placeholder="--max-model-len 8192" hint=${t("As the engine's own command takes them.")} />
      <${TextField} name="deploy-machine" label=${t("Plan for another machine")} value=${form.machine} onValue=${set("machine")} placeholder="8xh20" />
    </div>
  </form>`;
}
