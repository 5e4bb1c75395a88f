/** Where the person writes, with pictures where the models see. */
import { html, useEffect, useRef } from "../../lib/html.js";
import { useKept } from "../../lib/hooks.js";
import { t } from "../../lib/i18n.js";
import { attempt, toast } from "../../lib/toasts.js";
import { FileButton } from "../../components/file_button.js";
import { Icon } from "../../components/icon.js";
import { pictureUrl } from "./picture.js";

const TALLEST = 240;

export function Composer({ chat, busy, sees, extra }) {
  const [text, setText] = useKept("chat.text", "");
  const [images, setImages] = useKept("chat.images", []);
  const field = useRef(null);
  const ready = !busy && (text.trim() || images.length);
  const grow = () => {
    field.current.style.height = "auto";
    field.current.style.height = `${Math.min(TALLEST, field.current.scrollHeight)}px`;
  };
  useEffect(grow, []);
  const submit = (event) => {
    event?.preventDefault();
    if (!ready) return;
    void chat.ask(text, images);
    setText("");
    setImages([]);
    field.current.style.height = "auto";
  };
  const add = (files) => attempt(async () => {
    const pictures = [...files].filter((file) => file.type.startsWith("image/"));
    if (pictures.length && !sees) {
      toast(t("This model takes no pictures."));
      return;
    }
    const urls = await Promise.all(pictures.map(pictureUrl));
    setImages((now) => [...now, ...urls]);
  });
  const onKey = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  const onPaste = (event) => event.clipboardData.files.length && add(event.clipboardData.files);
  const onDrop = (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    void add(event.dataTransfer.files);
  };
  return html`<form class="composer" onSubmit=${submit} onDrop=${onDrop}
    onDragOver=${(event) => event.preventDefault()}>
    ${images.length > 0 && html`<div class="row wrap composer-images">
      ${images.map((url, index) => html`<button type="button" key=${index} class="thumbnail"
        aria-label=${t("Remove image {number}", { number: index + 1 })}
        onClick=${() => setImages(images.filter((_, place) => place !== index))}>
        <img src=${url} alt="" /><${Icon} name="close" size=${14} /></button>`)}
    </div>`}
    <label class="visually-hidden" for="chat-text">${t("Message")}</label>
    <textarea id="chat-text" ref=${field} rows="1" data-search placeholder=${t("Write a message")} value=${text}
      onInput=${(event) => { setText(event.target.value); grow(); }} onKeyDown=${onKey} onPaste=${onPaste}></textarea>
    <div class="row">
      ${sees && html`<${FileButton} label=${t("Image")} icon="image" style="ghost small" accept="image/*" multiple onFiles=${add} />`}
      ${extra}
      ${busy ? html`<button type="button" class="button small end" onClick=${chat.stop}>
          <${Icon} name="stop" size=${14} />${t("Stop")}</button>`
        : html`<button class="button primary icon end" aria-label=${t("Send")} title=${t("Send")} disabled=${!ready}>
          <${Icon} name="send" /></button>`}
    </div>
  </form>`;
}
