/** The functions that a model asks for, and a form for their results. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Icon } from "../../components/icon.js";

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // it still grows, or the model writes no JSON
  }
}

export function ToolCalls({ step, chat, column, turn, order, waiting }) {
  const submit = (event) => {
    event.preventDefault();
    void chat.sendToolResults(column, turn, order);
  };
  return html`<form class="tool-calls stack tight" onSubmit=${submit}>
    ${step.toolCalls.map((call, index) => {
      const id = `tool-${column}-${turn}-${order}-${index}`;
      return html`<div class="tool-call" key=${index}>
        <div class="row"><${Icon} name="tool" size=${14} /><strong class="mono">${call.name}</strong></div>
        <pre tabindex="0" aria-label=${t("Arguments of {name}", { name: call.name })}>${pretty(call.arguments)}</pre>
        ${waiting ? html`<label class="visually-hidden" for=${id}>${t("Result of {name}", { name: call.name })}</label>
            <textarea id=${id} class="input code" placeholder=${t("What the tool returns")} value=${call.result ?? ""}
              onInput=${(event) => chat.setToolResult(column, turn, order, index, event.target.value)}></textarea>`
          : call.result !== null && html`<pre tabindex="0" aria-label=${t("Result of {name}", { name: call.name })}>${call.result}</pre>`}
      </div>`;
    })}
    ${waiting && html`<div><button class="button small">${t("Send the results")}</button></div>`}
  </form>`;
}
