import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Dialog } from "../../components/dialog.js";
import { TextField } from "../../components/field.js";
import { act } from "./actions.js";

export function ScaleDialog({ model, onClose }) {
  const [replicas, setReplicas] = useState(String(model.wanted_replicas));
  const count = Number(replicas);
  const valid = Number.isInteger(count) && count >= 1;
  const submit = (event) => {
    event.preventDefault();
    onClose();
    void act("scale", model.name, { replicas: count });
  };
  return html`<${Dialog} title=${t("Scale {model}", { model: model.name })} onClose=${onClose}>
    <form class="stack" onSubmit=${submit}>
      <${TextField} name="scale-replicas" label=${t("Replicas")} type="number" min="1" step="1" value=${replicas}
        onValue=${setReplicas} fault=${valid ? null : t("A whole number from 1 on was expected.")}
        hint=${t("Until the configuration is applied the next time.")} />
      <div class="row"><button class="button primary end" disabled=${!valid}>${t("Scale")}</button></div>
    </form><//>`;
}
