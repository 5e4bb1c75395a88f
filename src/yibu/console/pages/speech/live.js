/** The microphone, transcribed while somebody speaks. */
import { html, useEffect, useRef, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { clock } from "../../lib/format.js";
import { download } from "../../lib/download.js";
import { Copy } from "../../components/copy.js";
import { Icon } from "../../components/icon.js";
import { Notice } from "../../components/notice.js";
import { openSession } from "./realtime.js";
import { Settings, startSettings } from "./settings.js";

const LEVELS = 60;

export function Live({ models }) {
  const [settings, setSettings] = useState(() => startSettings(models));
  const [state, setState] = useState("idle");
  const [lines, setLines] = useState([]);
  const [levels, setLevels] = useState([]);
  const [error, setError] = useState(null);
  const [began, setBegan] = useState(0);
  const session = useRef(null);
  const gone = useRef(false);
  useEffect(() => () => {
    gone.current = true;
    session.current?.close();
  }, []);

  async function start() {
    setError(null);
    setState("opening");
    setBegan(Date.now());
    try {
      session.current = await openSession(settings, {
        onText: (id, part) => setLines((now) => withText(now, id, part)),
        onLevel: (level) => setLevels((now) => [...now.slice(1 - LEVELS), level]),
        onError: setError,
        onEnd: () => setState("idle"),
      });
      if (gone.current) session.current.close(); // the page was left while the browser asked
      setState("listening");
    } catch (problem) {
      setState("idle");
      setError(problem.name === "NotAllowedError" ? t("The browser was not allowed to use the microphone.")
        : problem.name === "NotFoundError" ? t("There is no microphone.")
          : problem.name === "TypeError" ? t("Browsers give the microphone only to pages loaded by https or from this machine.")
            : problem instanceof DOMException ? t("The microphone cannot be used: {message}", { message: problem.message })
              : problem.message);
    }
  }
  const stop = () => {
    setState("ending");
    session.current.finish();
  };
  const text = lines.map((line) => line.text).join("\n");
  return html`<div class="stack">
    <${Settings} models=${models} settings=${settings} onSettings=${setSettings} single />
    <section class="card" aria-label=${t("Live transcript")}>
      <div class="card-head">
        ${state === "listening" ? html`<button type="button" class="button danger" onClick=${stop}><${Icon} name="stop" />${t("Stop")}</button>`
        : html`<button type="button" class="button primary" disabled=${state !== "idle"} onClick=${start}>
            <${Icon} name="speech" />${t("Speak")}</button>`}
        <${Level} levels=${levels} />
        <span class="end row">
          ${state === "listening" && html`<${Elapsed} since=${began} />`}
          <${Copy} text=${text} label=${t("Copy the text")} />
          <button type="button" class="button ghost small icon" aria-label=${t("Download the text")} title=${t("Download the text")}
            disabled=${!lines.length} onClick=${() => download("live.txt", `${text}\n`)}><${Icon} name="download" size=${14} /></button>
          <button type="button" class="button ghost small icon" aria-label=${t("Clear")} title=${t("Clear")}
            disabled=${!lines.length} onClick=${() => setLines([])}><${Icon} name="trash" size=${14} /></button>
        </span>
      </div>
      <div class="card-body live-text" role="log" aria-live="polite">
        ${!lines.length && html`<p class="muted">${state === "listening" ? t("Listening…") : t("Press Speak, and say something.")}</p>`}
        ${lines.map((line) => html`<p key=${line.id} class=${line.final ? "" : "muted"}>${line.text}</p>`)}
      </div>
    </section>
    ${error && html`<${Notice} kind="bad">${error}<//>`}
  </div>`;
}

function withText(lines, id, { text, final }) {
  const known = lines.find((line) => line.id === id);
  if (!known) return [...lines, { id, text, final }];
  return lines.map((line) => (line.id === id ? { id, text: final ? text : line.text + text, final } : line));
}

function Level({ levels }) {
  const bars = [...Array(LEVELS - levels.length).fill(0), ...levels];
  return html`<svg class="level" viewBox=${`0 0 ${LEVELS * 4} 28`} aria-hidden="true">
    ${bars.map((level, index) => {
      const tall = Math.max(2, Math.min(28, level * 90));
      return html`<rect key=${index} x=${index * 4} y=${(28 - tall) / 2} width="2.5" height=${tall} rx="1" />`;
    })}
  </svg>`;
}

function Elapsed({ since }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 200);
    return () => clearInterval(timer);
  }, []);
  return html`<span class="mono muted">${clock((now - since) / 1000)}</span>`;
}
