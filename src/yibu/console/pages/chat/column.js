/** One model's side of the conversation. */
import { useEnd } from "../../lib/hooks.js";
import { html, useEffect, useRef } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Icon } from "../../components/icon.js";
import { Answer } from "./answer.js";
import { Question } from "./question.js";

export function Column({ chat, models, column }) {
  const { conversation } = chat;
  const list = useRef(null);
  const { toEnd, onScroll } = useEnd(list);
  useEffect(toEnd, [conversation]);
  useEffect(() => {
    const observer = new ResizeObserver(toEnd);
    observer.observe(list.current.firstElementChild);
    return () => observer.disconnect();
  }, []);
  const name = conversation.models[column];
  const known = models.some((model) => model.id === name);
  return html`<section class="chat-column" aria-label=${t("Answers of {model}", { model: name })}>
    <div class="chat-model">
      <label class="visually-hidden" for=${`chat-model-${column}`}>${t("Model")}</label>
      <select id=${`chat-model-${column}`} class="input" value=${name}
        onChange=${(event) => chat.setModel(column, event.target.value)}>
        ${!known && html`<option value=${name} selected>${t("{model} (not up)", { model: name })}</option>`}
        ${models.map((model) => html`<option key=${model.id} value=${model.id} selected=${model.id === name}>${model.id}</option>`)}
      </select>
      ${conversation.models.length > 1 && html`<button type="button" class="button ghost small icon"
        aria-label=${t("Remove {model} from the comparison", { model: name })}
        onClick=${() => chat.removeModel(column)}><${Icon} name="close" size=${14} /></button>`}
    </div>
    <div class="chat-turns" ref=${list} onScroll=${onScroll} tabindex="0" role="log" aria-label=${t("Conversation")}>
      <div class="chat-inner">
        ${!conversation.turns.length && html`<p class="chat-empty muted">${t("Ask {model} something.", { model: name })}</p>`}
        ${conversation.turns.map((turn, index) => html`<div class="turn" key=${index}>
          <${Question} turn=${turn} index=${index} chat=${chat} editable=${column === 0} />
          ${(turn.answers[column] ?? []).map((step, order) => html`<${Answer} key=${order} step=${step}
            chat=${chat} column=${column} turn=${index} order=${order}
            last=${order === turn.answers[column].length - 1} />`)}
          ${!turn.answers[column]?.length && index === conversation.turns.length - 1 && html`<div>
            <button type="button" class="button small" onClick=${() => chat.retry(column, index)}>
              ${t("Have {model} answer", { model: name })}</button></div>`}
        </div>`)}
      </div>
    </div>
  </section>`;
}
