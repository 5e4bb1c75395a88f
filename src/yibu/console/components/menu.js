/** A button with a list of actions below it. */
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { Icon } from "./icon.js";

/** `items` are {label, icon, disabled, run}; `label` names the button where it shows an icon alone. */
export function Menu({ label, icon = "more", text = null, items, small = true, up = false, left = false }) {
  const [open, setOpen] = useState(false);
  const root = useRef(null);
  useEffect(() => {
    if (!open) return undefined;
    root.current.querySelector("[role=menuitem]:not(:disabled)")?.focus();
    const outside = (event) => root.current?.contains(event.target) || setOpen(false);
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, [open]);
  const close = () => {
    setOpen(false);
    root.current.querySelector("[aria-haspopup]").focus();
  };
  const onKey = (event) => {
    if (!open) return;
    const all = [...root.current.querySelectorAll("[role=menuitem]:not(:disabled)")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      const next = all.indexOf(document.activeElement) + step;
      all[(next + all.length) % all.length]?.focus();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      close();
    } else if (event.key === "Tab") setOpen(false);
  };
  const style = `button ${small ? "small" : ""} ${text ? "" : "icon"} ghost`;
  return html`<div class="menu" ref=${root} onKeyDown=${onKey}>
    <button type="button" class=${style} aria-haspopup="menu" aria-expanded=${open}
      aria-label=${text ? undefined : label} title=${label} onClick=${() => setOpen(!open)}>
      <${Icon} name=${icon} size=${small ? 15 : 16} />${text}
    </button>
    ${open && html`<div role="menu" aria-label=${label} class=${`menu-list ${up ? "up" : ""} ${left ? "left" : ""}`}>
      ${items.map((item) => html`<button type="button" role="menuitem" tabindex="-1" key=${item.label}
        disabled=${item.disabled} onClick=${() => { close(); item.run(); }}>
        ${item.icon && html`<${Icon} name=${item.icon} size=${15} />`}${item.label}
      </button>`)}
    </div>`}
  </div>`;
}
