/** What is wrong with the text, each with its line. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Notice, Spinner } from "../../components/notice.js";

export function Faults({ checked, onLine }) {
  if (!checked) return html`<${Spinner} label=${t("Checking")} />`;
  return html`<div class="faults" aria-live="polite">
    ${checked.ok && html`<${Notice} kind="ok">${t("No faults.")}<//>`}
    ${checked.faults.map((fault, index) => html`<button type="button" class="fault-entry" key=${index}
      disabled=${fault.line === null} onClick=${() => onLine(fault.line)}>
      ${fault.line !== null && html`<strong class="nowrap">${t("line {line}", { line: String(fault.line) })}</strong>`}<span>${fault.message}</span></button>`)}
    ${checked.notes.length > 0 && html`<${Notice}>${checked.notes.join("\n")}<//>`}
  </div>`;
}
