/** What the person asked, which may be edited and asked again. */
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Icon } from "../../components/icon.js";

export function Question({ turn, index, chat, editable }) {
  const [draft, setDraft] = useState(null);
  if (draft !== null) {
    const submit = (event) => {
      event.preventDefault();
      setDraft(null);
      void chat.ask(draft, turn.images, index);
    };
    return html`<form class="question editing stack tight" onSubmit=${submit}>
      <label class="visually-hidden" for=${`edit-${index}`}>${t("Edit the message")}</label>
      <textarea id=${`edit-${index}`} class="input" value=${draft} autofocus
        onInput=${(event) => setDraft(event.target.value)}></textarea>
      <div class="row">
        <button class="button primary small" disabled=${!draft.trim()}>${t("Ask again")}</button>
        <button type="button" class="button small" onClick=${() => setDraft(null)}>${t("Cancel")}</button>
      </div>
    </form>`;
  }
  return html`<div class="question">
    <div class="bubble">
      ${turn.images.map((url, order) => html`<img key=${order} src=${url} alt=${t("Attached image {number}", { number: order + 1 })} />`)}
      <div class="bubble-text">${turn.text}</div>
    </div>
    ${editable && html`<button type="button" class="button ghost small icon" aria-label=${t("Edit the message")}
      title=${t("Edit the message")} onClick=${() => setDraft(turn.text)}><${Icon} name="edit" size=${14} /></button>`}
  </div>`;
}
