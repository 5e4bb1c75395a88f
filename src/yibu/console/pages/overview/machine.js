/** Processor, memory, GPUs with what each model holds, disks. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { bytes, percent } from "../../lib/format.js";
import { Meter } from "../../components/meter.js";

/** Shares of each model, then what others use. */
function parts(models, used, whole) {
  const shares = models.filter((one) => one.bytes).map((one) => ({
    share: one.bytes / whole, title: t("{model}: {size}", { model: one.model, size: bytes(one.bytes) }),
  }));
  const held = models.reduce((sum, one) => sum + (one.bytes ?? 0), 0);
  const others = Math.max(0, (used ?? 0) - held);
  return [...shares, { share: others / whole, rest: true, title: t("others: {size}", { size: bytes(others) }) }];
}

function Gauge({ title, note, value, label, children, legend = [] }) {
  return html`<div class="gauge card">
    <div class="row"><h2 class="grow truncate" title=${title}>${title}</h2><span class="gauge-value">${value}</span></div>
    ${children}
    <div class="small muted row wrap"><span class="grow">${note}</span></div>
    ${legend.length > 0 && html`<ul class="legend small" aria-label=${label}>
      ${legend.map((one, index) => html`<li key=${one.model}><span class=${`dot s${(index % 6) + 1}`}></span>
        <span class="truncate">${one.model}</span><span class="muted nowrap">${bytes(one.bytes)}</span></li>`)}
    </ul>`}
  </div>`;
}

function Memory({ machine }) {
  const { memory_bytes: whole, memory_used_bytes: used, memory } = machine;
  const models = memory.filter((one) => one.bytes);
  return html`<${Gauge} title=${t("Memory")} value=${percent(used / whole)} legend=${models}
    label=${t("Memory by model")} note=${t("{used} of {whole}", { used: bytes(used), whole: bytes(whole) })}>
    <${Meter} label=${t("Memory")} parts=${parts(models, used, whole)} /><//>`;
}

function Gpu({ gpu }) {
  const { memory_bytes: whole, used_bytes: used } = gpu;
  const models = gpu.models.filter((one) => one.bytes);
  const busy = gpu.busy_percent === null ? null : percent(gpu.busy_percent / 100);
  const memory = whole === null ? "" : t("{used} of {whole}", { used: bytes(used), whole: bytes(whole) });
  const note = busy === null ? memory : t("{memory}, {busy} busy", { memory, busy });
  return html`<${Gauge} title=${t("GPU {index} · {name}", { index: gpu.index, name: gpu.name })} legend=${models}
    value=${whole ? percent(used / whole) : ""} label=${t("GPU memory by model")} note=${note}>
    <${Meter} label=${t("Memory of GPU {index}", { index: gpu.index })} parts=${whole ? parts(models, used, whole) : []} /><//>`;
}

export function Machine({ machine }) {
  const share = machine.cpu_percent === null ? null : machine.cpu_percent / 100;
  return html`<section class="gauges" aria-label=${t("Machine")}>
    <${Gauge} title=${t("Processor")} value=${percent(share)} note=${t("{count} cores", { count: machine.cpus })}>
      <${Meter} label=${t("Processor")} parts=${[{ share: share ?? 0 }]} /><//>
    <${Memory} machine=${machine} />
    ${machine.gpus.map((gpu) => html`<${Gpu} key=${gpu.index} gpu=${gpu} />`)}
    ${machine.disks.map((disk) => html`<${Gauge} key=${disk.path} title=${t("Disk")} value=${percent(1 - disk.free_bytes / disk.bytes)}
      note=${t("{free} free at {path}", { free: bytes(disk.free_bytes), path: disk.path })}>
      <${Meter} label=${t("Disk at {path}", { path: disk.path })} parts=${[{ share: 1 - disk.free_bytes / disk.bytes }]} /><//>`)}
  </section>`;
}
