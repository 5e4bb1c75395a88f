/** A text field with line numbers. */
import { html, useRef } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";

const LINE_HEIGHT = 20;

export function Editor({ control, text, onText, faults }) {
  const field = useRef(null);
  const numbers = useRef(null);
  const faulty = new Set(faults.map((fault) => fault.line));
  const count = text.split("\n").length;
  control.current = {
    goTo(line) {
      const lines = text.split("\n");
      const at = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
      field.current.focus();
      field.current.setSelectionRange(at, at + (lines[line - 1]?.length ?? 0));
      field.current.scrollTop = Math.max(0, (line - 5) * LINE_HEIGHT);
    },
  };
  /** Spaces instead of a tab; Escape and then Tab leaves the field. */
  const left = useRef(false);
  const onKey = (event) => {
    if (event.key === "Escape") left.current = true;
    else if (event.key === "Tab" && !event.shiftKey && !left.current) {
      event.preventDefault();
      const { selectionStart, selectionEnd } = field.current;
      field.current.setRangeText("  ", selectionStart, selectionEnd, "end");
      onText(field.current.value);
    } else if (event.key !== "Shift") left.current = false;
  };
  return html`<div class="editor">
    <div class="editor-lines" ref=${numbers} aria-hidden="true">${Array.from({ length: count }, (_, index) => html`
      <div key=${index} class=${faulty.has(index + 1) ? "fault" : ""}>${index + 1}</div>`)}</div>
    <textarea ref=${field} aria-label=${t("Text of the configuration")} aria-describedby="editor-hint" aria-invalid=${faults.length ? "true" : "false"}
      spellcheck="false" autocapitalize="off" value=${text} onInput=${(event) => onText(event.target.value)} onKeyDown=${onKey}
      onScroll=${() => { numbers.current.scrollTop = field.current.scrollTop; }}></textarea>
    <span id="editor-hint" class="visually-hidden">${t("Escape and then Tab leaves the field.")}</span>
  </div>`;
}
