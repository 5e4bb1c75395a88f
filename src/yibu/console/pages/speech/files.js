/** A recording, transcribed by one model or by two side by side. */
import { html, useEffect, useRef, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { bytes } from "../../lib/format.js";
import { peaksOf } from "../../lib/wave.js";
import { toast } from "../../lib/toasts.js";
import { FileButton } from "../../components/file_button.js";
import { Icon } from "../../components/icon.js";
import { Player } from "./player.js";
import { Settings, startSettings } from "./settings.js";
import { Transcript } from "./transcript.js";
import { transcribe } from "./transcribing.js";

export function Files({ models }) {
  const [settings, setSettings] = useState(() => startSettings(models));
  const [recording, setRecording] = useState(null);
  const [results, setResults] = useState([]);
  const [time, setTime] = useState(0);
  const player = useRef(null);
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);
  useEffect(() => () => recording && URL.revokeObjectURL(recording.url), [recording?.url]);

  async function open(file) {
    if (!file.size) {
      toast(t("{file} is empty.", { file: file.name }), "bad");
      return;
    }
    const url = URL.createObjectURL(file);
    setRecording({ file, url, wave: null });
    setResults([]);
    setTime(0);
    void start(file);
    const wave = await peaksOf(file);
    setRecording((now) => (now?.url === url ? { ...now, wave } : now));
  }

  async function start(file) {
    running.current?.abort();
    const aborter = new AbortController();
    running.current = aborter;
    const change = (index, part) => setResults((now) =>
      (running.current === aborter ? now.map((one, place) => (place === index ? { ...one, ...part } : one)) : now));
    setResults(settings.models.map((model) => ({ model, state: "running", result: null, error: null, seconds: null })));
    await Promise.all(settings.models.map((model, index) =>
      transcribe(file, model, settings, aborter.signal).then(
        ({ result, seconds }) => change(index, { state: "done", result, seconds }),
        (error) => aborter.signal.aborted || change(index, { state: "failed", error: error.message }))));
  }

  const seek = (seconds) => player.current?.seek(seconds);
  const busy = results.some((one) => one.state === "running");
  const segments = results.find((one) => one.result)?.result.segments ?? [];
  return html`<div class="stack">
    <${Settings} models=${models} settings=${settings} onSettings=${setSettings} />
    <${DropZone} onFile=${open} recording=${recording} />
    ${recording && html`<section class="card" aria-label=${t("Recording")}>
      <div class="card-head"><h2 class="truncate grow">${recording.file.name}</h2>
        <span class="small muted nowrap">${bytes(recording.file.size)}</span>
        <button type="button" class="button small" disabled=${busy} onClick=${() => start(recording.file)}>
          <${Icon} name="restart" size=${14} />${t("Transcribe again")}</button></div>
      <div class="card-body"><${Player} control=${player} recording=${recording} segments=${segments} onTime=${setTime} /></div>
    </section>`}
    <div class="transcripts">
      ${results.map((one, index) => html`<${Transcript} key=${`${one.model}-${index}`} one=${one} time=${time}
        onSeek=${seek} name=${recording?.file.name ?? ""} />`)}
    </div>
  </div>`;
}

function DropZone({ onFile, recording }) {
  const [over, setOver] = useState(false);
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    if (event.dataTransfer.files.length) void onFile(event.dataTransfer.files[0]);
  };
  return html`<div class=${`drop ${over ? "over" : ""} ${recording ? "slim" : ""}`} onDrop=${drop}
    onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)}>
    <${Icon} name="speech" size=${recording ? 18 : 30} />
    <span>${t("Drop a recording or a video here")}</span>
    <${FileButton} label=${t("Choose a file")} accept="audio/*,video/*,.amr,.pcm" onFiles=${([file]) => onFile(file)} />
  </div>`;
}
