/** How long a model stays loaded. */
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Dialog } from "../../components/dialog.js";
import { SelectField, TextField } from "../../components/field.js";
import { act } from "./actions.js";

const DEFAULT_IDLE = "15m";
const IDLE_FOR = "idle for";

export function KeepDialog({ model, onClose }) {
  const [kind, setKind] = useState(model.idle_seconds ? IDLE_FOR : model.keep);
  const [time, setTime] = useState(model.idle_seconds ? `${model.idle_seconds}s` : DEFAULT_IDLE);
  const submit = (event) => {
    event.preventDefault();
    onClose();
    void act("keep", model.name, { keep: kind === IDLE_FOR ? `idle ${time.trim()}` : kind });
  };
  return html`<${Dialog} title=${t("Keep {model} loaded", { model: model.name })} onClose=${onClose}>
    <form class="stack" onSubmit=${submit}>
      <${SelectField} name="keep-kind" label=${t("Keep")} value=${kind} onValue=${setKind} options=${[
        ["always", t("always")], [IDLE_FOR, t("until it is idle for some time")],
        ["idle", t("until another model needs the memory")], ["manual", t("as loaded and unloaded by hand")],
      ]} />
      ${kind === IDLE_FOR && html`<${TextField} name="keep-time" label=${t("Idle time")} value=${time} onValue=${setTime}
        hint=${t("Such as 90s, 15m or 2h.")} />`}
      <div class="row"><button class="button primary end">${t("Save")}</button></div>
    </form><//>`;
}
