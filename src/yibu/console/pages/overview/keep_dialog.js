/** How long a model stays loaded. */
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Dialog } from "../../components/dialog.js";
import { SelectField, TextField } from "../../components/field.js";
import { act } from "./actions.js";

const DEFAULT_IDLE = "15m";

export function KeepDialog({ model, onClose }) {
  const fixed = ["always", "demand"].includes(model.keep);
  const [kind, setKind] = useState(fixed ? model.keep : "idle");
  const [time, setTime] = useState(fixed ? DEFAULT_IDLE : model.keep.replace(/^idle\s*/, ""));
  const submit = (event) => {
    event.preventDefault();
    onClose();
    void act("keep", model.name, { keep: kind === "idle" ? time : kind });
  };
  return html`<${Dialog} title=${t("Keep {model} loaded", { model: model.name })} onClose=${onClose}>
    <form class="stack" onSubmit=${submit}>
      <${SelectField} name="keep-kind" label=${t("Keep")} value=${kind} onValue=${setKind} options=${[
        ["always", t("always")], ["idle", t("until it is idle for some time")], ["demand", t("until another model needs the memory")],
      ]} />
      ${kind === "idle" && html`<${TextField} name="keep-time" label=${t("Idle time")} value=${time} onValue=${setTime}
        hint=${t("Such as 90s, 15m or 2h.")} />`}
      <div class="row"><button class="button primary end">${t("Save")}</button></div>
    </form><//>`;
}
