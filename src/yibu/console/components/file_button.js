/** A button that has the person choose files, the same ones again too. */
import { html, useRef } from "../lib/html.js";
import { Icon } from "./icon.js";

/** `onFiles` gets the chosen ones; `attributes` are the input's. */
export function FileButton({ label, icon, style = "", onFiles, ...attributes }) {
  const picker = useRef(null);
  const chosen = ({ target }) => {
    const files = [...target.files];
    target.value = ""; // else the browser says nothing when the same file is chosen again
    if (files.length) void onFiles(files);
  };
  return html`<button type="button" class=${`button ${style}`} onClick=${() => picker.current.click()}>
      ${icon && html`<${Icon} name=${icon} size=${14} />`}${label}</button>
    <input ref=${picker} type="file" hidden aria-label=${label} ...${attributes} onChange=${chosen} />`;
}
