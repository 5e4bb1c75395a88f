/** One model: state, figures, replicas, and what can be done with it. */
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { compact, number, seconds } from "../../lib/format.js";
import { go } from "../../lib/router.js";
import { Icon } from "../../components/icon.js";
import { Menu } from "../../components/menu.js";
import { Notice } from "../../components/notice.js";
import { Sparkline } from "../../components/sparkline.js";
import { State } from "../../components/state.js";
import { act, keepText } from "./actions.js";
import { KeepDialog } from "./keep_dialog.js";
import { Progress } from "./progress.js";
import { Replicas } from "./replicas.js";
import { ScaleDialog } from "./scale_dialog.js";

const STARTABLE = new Set(["stopped", "unloaded", "failed"]);

export function ModelRow({ model }) {
  const [open, setOpen] = useState(false);
  const [dialog, setDialog] = useState(null);
  const ready = model.replicas.filter((one) => one.state === "ready").length;
  const startable = STARTABLE.has(model.state);
  const id = `replicas-${model.name}`;
  const can = (what) => model.state !== "failed" && model.capabilities.includes(what);
  const items = [
    can("chat") && { label: t("Chat with it"), icon: "chat", run: () => go("chat", model.name) },
    can("transcriptions") && { label: t("Transcribe with it"), icon: "speech", run: () => go("speech", model.name) },
    startable ? { label: t("Start"), icon: "play", run: () => act("start", model.name) }
      : { label: t("Stop"), icon: "stop", run: () => act("stop", model.name) },
    { label: t("Restart"), icon: "restart", disabled: startable, run: () => act("restart", model.name) },
    { label: t("Scale"), icon: "columns", disabled: startable, run: () => setDialog("scale") },
    { label: t("Unload"), icon: "download", disabled: model.state !== "ready", run: () => act("unload", model.name) },
    { label: t("Keep loaded"), icon: "pin", run: () => setDialog("keep") },
    { label: t("Show logs"), icon: "logs", run: () => go("logs", model.name) },
  ].filter(Boolean);
  return html`<li class="model">
    <div class="model-line">
      <button type="button" class="button ghost small icon expander" aria-expanded=${open} aria-controls=${id}
        aria-label=${t("Replicas of {model}", { model: model.name })} onClick=${() => setOpen(!open)}>
        <${Icon} name="chevron" size=${14} /></button>
      <div class="model-name">
        <div class="row wrap"><strong>${model.name}</strong><${State} state=${model.state} phase=${model.phase} /></div>
        <div class="small muted truncate" title=${model.source}>${[model.engine, model.source].filter(Boolean).join(" · ")}</div>
      </div>
      ${model.replicas.length > 0 && html`<${Figures} model=${model} ready=${ready} />`}
      <${Menu} label=${t("Actions for {model}", { model: model.name })} small=${false} items=${items} />
    </div>
    ${model.progress && model.state !== "ready" && html`<${Progress} progress=${model.progress} />`}
    ${model.cause && html`<${Notice} kind=${model.state === "failed" ? "bad" : "warn"}>
      <strong>${model.cause}</strong>${model.hint && html`<span>${model.hint}</span>`}<//>`}
    <div id=${id} hidden=${!open}>${open && html`<${Replicas} model=${model} />`}</div>
    ${dialog === "scale" && html`<${ScaleDialog} model=${model} onClose=${() => setDialog(null)} />`}
    ${dialog === "keep" && html`<${KeepDialog} model=${model} onClose=${() => setDialog(null)} />`}
  </li>`;
}

function Figure({ label, value, bad, title }) {
  return html`<div class="figure" title=${title}><span class="small muted">${label}</span>
    <span class=${bad ? "bad" : ""}>${value}</span></div>`;
}

function Figures({ model, ready }) {
  const { recent } = model;
  return html`<div class="model-figures">
    <${Figure} label=${t("Replicas")} value=${t("{ready} of {wanted}", { ready, wanted: model.wanted_replicas })} title=${keepText(model)} />
    <${Figure} label=${t("In flight")} value=${number(model.in_flight)} />
    <${Figure} label=${t("Queued")} value=${number(model.queued)} />
    <div class="figure with-line"><${Figure} label=${t("Requests/s")} value=${number(model.requests_per_second, 1)} />
      <${Sparkline} values=${recent?.requests_per_second ?? []} label=${t("Requests a second over the last five minutes")} /></div>
    <div class="figure with-line"><${Figure} label=${t("Tokens/s")} value=${compact(model.output_tokens_per_second)} />
      <${Sparkline} values=${recent?.output_tokens_per_second ?? []} label=${t("Tokens a second over the last five minutes")} /></div>
    <div class="figure with-line"><${Figure} label=${t("TTFT p95")} value=${seconds(model.ttft_p95_seconds)} />
      <${Sparkline} values=${recent?.ttft_p95_seconds ?? []} label=${t("Time to the first token over the last five minutes")} /></div>
    <${Figure} label=${t("Restarts")} value=${number(model.restarts)} bad=${model.restarts > 0} />
  </div>`;
}
