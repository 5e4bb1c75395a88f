/** Keys that work everywhere: g and a letter opens a page, ? shows this list. */
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { go } from "../lib/router.js";
import { Dialog } from "./dialog.js";
import { pageTitle } from "./navigation.js";

const LETTERS = {
  o: "overview", d: "deploy", c: "chat", s: "speech", l: "logs", m: "metrics", k: "keys", f: "config",
};
const SECOND_LETTER_MILLISECONDS = 1500;

const typing = (target) =>
  target.closest?.("input, textarea, select, [contenteditable=true], dialog") !== null;

export function Shortcuts() {
  const [open, setOpen] = useState(false);
  const pressed = useRef(0);
  useEffect(() => {
    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
      if (event.key === "g") pressed.current = Date.now();
      else if (event.key === "?") setOpen(true);
      else if (event.key === "/") focusSearch(event);
      else if (event.key in LETTERS && Date.now() - pressed.current < SECOND_LETTER_MILLISECONDS) {
        event.preventDefault();
        pressed.current = 0;
        go(LETTERS[event.key]);
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  if (!open) return null;
  return html`<${Dialog} title=${t("Keyboard")} onClose=${() => setOpen(false)}>
    <div class="keys">
      ${Object.entries(LETTERS).map(([letter, page]) => html`
        <span class="row"><kbd>g</kbd><kbd>${letter}</kbd></span><span>${pageTitle(page)}</span>`)}
      <span><kbd>/</kbd></span><span>${t("Search, or write a message")}</span>
      <span><kbd>Enter</kbd></span><span>${t("Send the message; Shift and Enter begin a line")}</span>
      <span><kbd>Esc</kbd></span><span>${t("Close, or stop an answer")}</span>
      <span><kbd>?</kbd></span><span>${t("Show this list")}</span>
    </div>
  <//>`;
}

function focusSearch(event) {
  const field = document.querySelector("[data-search]");
  if (!field) return;
  event.preventDefault();
  field.focus();
}
