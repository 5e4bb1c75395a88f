/** What goes with each request. Empty fields are not sent: the model's defaults hold. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Field, TextField } from "../../components/field.js";
import { Panel } from "../../components/panel.js";
import { NO_PARAMETERS } from "./conversation.js";

function toolsFault(text) {
  if (!text.trim()) return null;
  try {
    return Array.isArray(JSON.parse(text)) ? null : t("A list of tools was expected: [{…}]");
  } catch (error) {
    return t("The tools are not JSON: {message}", { message: error.message });
  }
}

export function Parameters({ chat, onClose }) {
  const { parameters } = chat.conversation;
  const set = (name) => (value) => chat.setParameters({ ...parameters, [name]: value });
  const area = (name, label, hint, fault, attributes) => html`<${Field} name=${`chat-${name}`} label=${label}
    hint=${hint} fault=${fault} control=${(tied) => html`<textarea ...${tied} ...${attributes}
      onInput=${(event) => set(name)(event.target.value)} value=${parameters[name]}></textarea>`} />`;
  const numeric = (name, label, attributes) => html`<${TextField} name=${`chat-${name}`} label=${label}
    type="number" placeholder=${t("default")} value=${parameters[name]} onValue=${set(name)} ...${attributes} />`;
  return html`<${Panel} title=${t("Parameters")} onClose=${onClose}>
    ${area("system", t("System prompt"), null, null, { rows: 4 })}
    <div class="fields">
      ${numeric("temperature", t("Temperature"), { min: 0, max: 2, step: 0.1 })}
      ${numeric("top_p", t("Top p"), { min: 0, max: 1, step: 0.05 })}
      ${numeric("max_tokens", t("Most tokens"), { min: 1, step: 1 })}
      ${numeric("seed", t("Seed"), { step: 1 })}
      ${numeric("presence_penalty", t("Presence penalty"), { min: -2, max: 2, step: 0.1 })}
    </div>
    ${area("stop", t("Stop at"), t("A text a line, where the answer ends."), null, { rows: 2 })}
    ${area("tools", t("Tools"), t("JSON, as the API has it."), toolsFault(parameters.tools), { rows: 8, class: "input code", spellcheck: false })}
    <button type="button" class="button" onClick=${() => chat.setParameters(NO_PARAMETERS)}>${t("Reset")}</button>
  <//>`;
}
