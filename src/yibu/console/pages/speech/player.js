/** The recording's waveform with its segments; a click or the arrow keys move the playback. */
import { html, useEffect, useRef, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { coloursOf } from "../../lib/colours.js";
import { clock } from "../../lib/format.js";
import { useStore } from "../../lib/store.js";
import { chosenTheme } from "../../lib/theme.js";
import { Icon } from "../../components/icon.js";

const HEIGHT = 88;
const STEP_SECONDS = 5;
const COLOURS = ["--wave", "--wave-played", "--segment-even", "--segment-odd"];

export function Player({ control, recording, segments, onTime }) {
  const audio = useRef(null);
  const canvas = useRef(null);
  const [playing, setPlaying] = useState(false);
  const [time, setTime] = useState(0);
  const [length, setLength] = useState(0);
  const theme = useStore(chosenTheme);
  const { wave } = recording;
  const duration = wave?.duration ?? length;
  const seek = (seconds) => {
    audio.current.currentTime = Math.max(0, Math.min(seconds, duration));
    moved();
  };
  const moved = () => {
    setTime(audio.current.currentTime);
    onTime(audio.current.currentTime);
  };
  control.current = { seek };
  useEffect(() => {
    if (!playing) return undefined;
    let frame = requestAnimationFrame(function next() {
      moved();
      frame = requestAnimationFrame(next);
    });
    return () => cancelAnimationFrame(frame);
  }, [playing]);
  useEffect(() => {
    const paint = () => canvas.current && draw(canvas.current, wave, segments, duration, time);
    paint();
    const observer = new ResizeObserver(paint);
    observer.observe(canvas.current);
    return () => observer.disconnect();
  }, [wave, segments, duration, time, theme]);
  const onKey = (event) => {
    const steps = { ArrowLeft: -STEP_SECONDS, ArrowRight: STEP_SECONDS };
    if (event.key in steps) seek(time + steps[event.key]);
    else if (event.key === " ") toggle();
    else return;
    event.preventDefault();
  };
  const toggle = () => (playing ? audio.current.pause() : audio.current.play().catch(() => setPlaying(false)));
  const click = (event) => {
    const box = canvas.current.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * duration);
  };
  return html`<div class="stack tight">
    <audio ref=${audio} src=${recording.url} preload="metadata" onPlay=${() => setPlaying(true)}
      onPause=${() => setPlaying(false)} onLoadedMetadata=${() => setLength(Number.isFinite(audio.current.duration) ? audio.current.duration : 0)} onTimeUpdate=${moved}></audio>
    <canvas ref=${canvas} class="waveform" height=${HEIGHT} role="slider" tabindex="0" aria-label=${t("Position in the recording")}
      aria-valuemin="0" aria-valuemax=${Math.round(duration)} aria-valuenow=${Math.round(time)} aria-valuetext=${clock(time)}
      onClick=${click} onKeyDown=${onKey}></canvas>
    <div class="row">
      <button type="button" class="button" onClick=${toggle}><${Icon} name=${playing ? "pause" : "play"} />
        ${playing ? t("Pause") : t("Play")}</button>
      <span class="mono muted">${clock(time)} / ${clock(duration)}</span>
    </div>
  </div>`;
}

function draw(canvas, wave, segments, duration, time) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = width * ratio;
  canvas.height = HEIGHT * ratio;
  const brush = canvas.getContext("2d");
  const colours = coloursOf(canvas.parentElement, COLOURS);
  brush.scale(ratio, ratio);
  const x = (seconds) => (duration ? (seconds / duration) * width : 0);
  segments.forEach((segment, index) => {
    brush.fillStyle = colours[index % 2 ? "--segment-odd" : "--segment-even"];
    brush.fillRect(x(segment.start), 0, x(segment.end) - x(segment.start), HEIGHT);
  });
  const count = wave?.peaks.length ?? 0;
  const loudest = Math.max(0.05, ...(wave?.peaks ?? []));
  for (let index = 0; index < count; index += 1) {
    const left = (index / count) * width;
    const tall = Math.max(1, (wave.peaks[index] / loudest) * (HEIGHT - 12));
    brush.fillStyle = colours[left <= x(time) ? "--wave-played" : "--wave"];
    brush.fillRect(left, (HEIGHT - tall) / 2, Math.max(1, width / count - 0.5), tall);
  }
  brush.fillStyle = colours["--wave-played"];
  brush.fillRect(x(time) - 0.75, 0, 1.5, HEIGHT);
}
