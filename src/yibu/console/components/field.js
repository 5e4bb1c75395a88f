/** A label with its control, hint and fault. */
import { html } from "../lib/html.js";

let count = 0;
const ids = new Map();

/** The same id for the same field over renders: its name within its form. */
function idOf(name) {
  if (!ids.has(name)) {
    count += 1;
    ids.set(name, `field-${count}`);
  }
  return ids.get(name);
}

/** `control(props)` renders the input with the attributes that tie it to its label. */
export function Field({ name, label, hint, fault, control }) {
  const id = idOf(name);
  const described = [hint && `${id}-hint`, fault && `${id}-fault`].filter(Boolean).join(" ");
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${control({ id, class: "input", "aria-describedby": described || undefined,
      "aria-invalid": fault ? "true" : undefined })}
    ${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
    ${fault && html`<span class="fault" id=${`${id}-fault`}>${fault}</span>`}
  </div>`;
}

/** A text field; `onValue` gets its text. */
export function TextField({ name, label, hint, fault, value, onValue, ...attributes }) {
  return html`<${Field} name=${name} label=${label} hint=${hint} fault=${fault} control=${(tied) => html`
    <input ...${tied} autocomplete="off" ...${attributes} value=${value}
      onInput=${(event) => onValue(event.target.value)} />`} />`;
}

/** A choice; `options` are [value, text]. */
export function SelectField({ name, label, hint, value, onValue, options }) {
  return html`<${Field} name=${name} label=${label} hint=${hint} control=${(tied) => html`
    <select ...${tied} value=${value} onChange=${(event) => onValue(event.target.value)}>
      ${options.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}
    </select>`} />`;
}

/** One of a few, as buttons side by side. */
export function Segmented({ label, value, onValue, options }) {
  return html`<div class="segmented" role="group" aria-label=${label}>
    ${options.map(([key, text]) => html`<button type="button" key=${key} class="button"
      aria-pressed=${key === value ? "true" : "false"} onClick=${() => onValue(key)}>${text}</button>`)}
  </div>`;
}
