import { html, useState } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { toast } from "../lib/toasts.js";
import { Icon } from "./icon.js";

/** Copy a text; pages that were not loaded by https or from loopback have no clipboard. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    toast(t("This browser does not let the page use the clipboard. Load it by https or from this machine."), "bad");
    return false;
  }
}

/** A button that copies `text`, or what `text()` gives. */
export function Copy({ text, label = t("Copy"), showLabel = false }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    if (!await copyText(typeof text === "function" ? text() : text)) return;
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button type="button" class=${`button ghost small ${showLabel ? "" : "icon"}`}
    aria-label=${done ? t("Copied") : label} title=${label} onClick=${copy}>
    <${Icon} name=${done ? "check" : "copy"} size=${14} />${showLabel && (done ? t("Copied") : label)}
  </button>`;
}
