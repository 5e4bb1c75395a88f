/** How far a download is. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { bytes, duration, percent } from "../../lib/format.js";
import { Meter } from "../../components/meter.js";
import { phaseText } from "../../components/state.js";

export function Progress({ progress }) {
  const { done_bytes: done, total_bytes: total } = progress;
  const share = total ? done / total : null;
  return html`<div class="stack tight">
    <${Meter} label=${t("Progress")} parts=${[{ share: share ?? 0 }]} />
    <div class="small muted row wrap">
      <span>${phaseText(progress.phase)}</span>
      ${share !== null && html`<span>${percent(share)}</span>`}
      <span>${total ? t("{used} of {whole}", { used: bytes(done), whole: bytes(total) }) : bytes(done)}</span>
      ${progress.bytes_per_second > 0 && html`<span>${t("{size}/s", { size: bytes(progress.bytes_per_second) })}</span>`}
      ${progress.seconds_left !== null && progress.seconds_left !== undefined
        && html`<span>${t("{duration} left", { duration: duration(progress.seconds_left) })}</span>`}
      ${progress.file && html`<span class="truncate">${progress.file}</span>`}
    </div>
  </div>`;
}
