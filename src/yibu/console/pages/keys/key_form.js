/** A new key, or other limits of one that there is. */
import { ask } from "../../lib/api.js";
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Dialog } from "../../components/dialog.js";
import { SelectField, TextField } from "../../components/field.js";
import { Notice } from "../../components/notice.js";
import { budgetText, keyPath } from "./key_row.js";

function startOf(row) {
  const text = (value) => (value === null || value === undefined ? "" : String(value));
  return {
    name: row.name ?? "", models: row.models ?? [], rpm: text(row.rpm), tpm: text(row.tpm), concurrency: text(row.concurrency),
    budget: row.budget ? budgetText(row.budget) : "", expires: "", priority: row.priority ?? "interactive",
    weight: text(row.weight ?? 1), admin: row.admin ?? false,
  };
}

const countOrNull = (text) => (text.trim() === "" ? null : Number(text));
const textOrNull = (text) => text.trim() || null;

/** Of a key that there is, what was changed alone. */
function requested(form, row) {
  const all = {
    models: form.models.length ? form.models : null, rpm: countOrNull(form.rpm), tpm: countOrNull(form.tpm),
    concurrency: countOrNull(form.concurrency), budget: textOrNull(form.budget), expires: textOrNull(form.expires),
    priority: form.priority, weight: Number(form.weight), admin: form.admin,
  };
  if (!row.name) return { name: form.name.trim(), ...all };
  const before = requested(startOf(row), {});
  return Object.fromEntries(Object.entries(all).filter(([name, value]) =>
    JSON.stringify(value) !== JSON.stringify(before[name])));
}

export function KeyForm({ row, models, onDone, onClose }) {
  const isNew = !row.name;
  const [form, setForm] = useState(() => startOf(row));
  const [fault, setFault] = useState(null);
  const set = (name) => (value) => setForm({ ...form, [name]: value });
  const submit = async (event) => {
    event.preventDefault();
    try {
      const [path, method] = isNew ? ["console/api/keys", "POST"] : [keyPath(row.name), "PATCH"];
      onDone(await ask(path, { method, json: requested(form, row) }));
    } catch (error) {
      setFault(error);
    }
  };
  const faultOf = (name) => (fault?.param === name ? fault.message : null);
  const field = (name, label, attributes) => html`<${TextField} name=${`key-${name}`} label=${label} value=${form[name]}
    onValue=${set(name)} fault=${faultOf(name)} ...${attributes} />`;
  const toggle = (name) => set("models")(form.models.includes(name)
    ? form.models.filter((one) => one !== name) : [...form.models, name]);
  const known = ["name", "rpm", "tpm", "concurrency", "budget", "expires", "weight"].includes(fault?.param);
  return html`<${Dialog} title=${isNew ? t("New key") : t("Limits of {name}", { name: row.name })} onClose=${onClose}>
    <form class="stack" onSubmit=${submit}>
      ${isNew && field("name", t("Name"), { required: true, hint: t("Who or what uses it, such as a program's name.") })}
      ${models.length > 0 && html`<fieldset class="field"><legend class="label small muted">${t("Models (none chosen: all)")}</legend>
        <div class="row wrap">${models.map((name) => html`<label class="check" key=${name}><input type="checkbox"
          checked=${form.models.includes(name)} onChange=${() => toggle(name)} />${name}</label>`)}</div></fieldset>`}
      <div class="fields">
        ${field("rpm", t("Requests a minute"), { type: "number", min: 1, placeholder: t("no limit") })}
        ${field("tpm", t("Tokens a minute"), { type: "number", min: 1, placeholder: t("no limit") })}
        ${field("concurrency", t("Requests at once"), { type: "number", min: 1, placeholder: t("no limit") })}
        ${field("budget", t("Token budget"), { placeholder: "5M/month" })}
        ${field("expires", t("Expires in"), { placeholder: isNew ? t("never") : t("unchanged") })}
        <${SelectField} name="key-priority" label=${t("Priority")} value=${form.priority} onValue=${set("priority")}
          options=${[["interactive", t("interactive")], ["batch", t("batch: after the others")]]} />
        ${field("weight", t("Weight where requests wait"), { type: "number", min: 1, max: 100, required: true })}
      </div>
      <label class="check"><input type="checkbox" checked=${form.admin} onChange=${(event) => set("admin")(event.target.checked)} />
        ${t("Admin: may use this console")}</label>
      ${fault && !known && html`<${Notice} kind="bad">${fault.message}<//>`}
      <div class="row"><button class="button primary end" disabled=${isNew && !form.name.trim()}>${isNew ? t("Make the key") : t("Save")}</button></div>
    </form><//>`;
}
