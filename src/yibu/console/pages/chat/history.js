/** Conversations that this browser keeps. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { dateTime } from "../../lib/format.js";
import { Icon } from "../../components/icon.js";
import { Panel } from "../../components/panel.js";

export function History({ chat, onClose }) {
  return html`<${Panel} title=${t("History")} onClose=${onClose}>
    <p class="small muted">${t("Conversations are kept in this browser alone.")}</p>
    ${!chat.history.length && html`<p class="muted">${t("There are none yet.")}</p>`}
    <ul class="history">
      ${chat.history.map((one) => html`<li key=${one.id} class="row">
        <button type="button" class="history-entry grow" aria-current=${one.id === chat.conversation.id ? "true" : undefined}
          onClick=${() => chat.open(one)}>
          <span class="truncate">${one.title || t("Without a title")}</span>
          <span class="small muted truncate">${dateTime(one.changed / 1000)} · ${one.models.join(", ")}</span>
        </button>
        <button type="button" class="button ghost small icon" aria-label=${t("Delete {title}", { title: one.title })}
          onClick=${() => chat.remove(one.id)}><${Icon} name="trash" size=${14} /></button>
      </li>`)}
    </ul>
  <//>`;
}
