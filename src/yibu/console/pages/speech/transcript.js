/** One model's text, which follows the playback. */
import { html, useEffect, useRef } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { clock, number, seconds } from "../../lib/format.js";
import { download } from "../../lib/download.js";
import { Copy } from "../../components/copy.js";
import { Menu } from "../../components/menu.js";
import { Notice, Spinner } from "../../components/notice.js";
import { plain, srt, vtt } from "./subtitles.js";
import { Tags } from "./tags.js";

export function Transcript({ one, time, onSeek, name }) {
  const { result } = one;
  return html`<section class="card" aria-label=${t("Transcript by {model}", { model: one.model })} aria-busy=${one.state === "running" ? "true" : "false"}>
    <div class="card-head"><h2 class="grow truncate">${one.model}</h2>
      ${result && html`<${Tags} of=${result} />
        <${Copy} text=${result.text} label=${t("Copy the text")} />
        <${Menu} label=${t("Download subtitles")} icon="download" items=${files(result, name)} />`}
    </div>
    <div class="card-body">
      ${one.state === "running" && html`<${Spinner} label=${t("Transcribing")} />`}
      ${one.error && html`<${Notice} kind="bad">${one.error}<//>`}
      ${result && html`<${Segments} result=${result} time=${time} onSeek=${onSeek} />
        <p class="figures small muted">${t("{duration} of audio in {time}", { duration: seconds(result.duration), time: seconds(one.seconds) })}
          ${result.duration > 0 && html`<span>${t("{factor}× real time", { factor: number(result.duration / one.seconds, 1) })}</span>`}</p>`}
    </div>
  </section>`;
}

function files(result, name) {
  const stem = name.replace(/\.[^.]+$/, "") || "transcript";
  return [
    { label: t("SubRip (.srt)"), run: () => download(`${stem}.srt`, srt(result.segments)) },
    { label: t("WebVTT (.vtt)"), run: () => download(`${stem}.vtt`, vtt(result.segments), "text/vtt") },
    { label: t("Text (.txt)"), run: () => download(`${stem}.txt`, plain(result.segments)) },
    { label: t("JSON (.json)"), run: () => download(`${stem}.json`, JSON.stringify(result, null, 2), "application/json") },
  ];
}

function Segments({ result, time, onSeek }) {
  const current = result.segments.findIndex((segment) => time >= segment.start && time < segment.end);
  const list = useRef(null);
  useEffect(() => {
    list.current?.children[current]?.scrollIntoView({ block: "nearest" });
  }, [current]);
  if (!result.segments.length) return html`<p class="muted">${result.text || t("No speech was heard.")}</p>`;
  return html`<ol class="segments" ref=${list}>
    ${result.segments.map((segment, index) => html`<li key=${index} aria-current=${index === current ? "true" : undefined}>
      <button type="button" class="segment" onClick=${() => onSeek(segment.start)}>
        <span class="mono muted segment-time">${clock(segment.start)}</span>
        <span class="grow">${segment.speaker && html`<strong>${segment.speaker} </strong>`}${wordsOf(result, segment, time)}</span>
      </button><${Tags} of=${segment} />
    </li>`)}
  </ol>`;
}

/** The segment's text, the word that is being said marked where the model tells times of words. */
function wordsOf(result, segment, time) {
  const text = segment.text.trim();
  const now = (result.words ?? []).find((word) => time >= word.start && time < word.end
    && word.start >= segment.start - 0.01 && word.end <= segment.end + 0.01);
  const word = now?.word.trim();
  if (!word || time <= 0) return text;
  const before = result.words.filter((one) => one.start >= segment.start - 0.01 && one.start < now.start);
  let from = 0;
  for (const one of before) {
    const at = text.indexOf(one.word.trim(), from);
    if (at >= 0) from = at + one.word.trim().length;
  }
  const at = text.indexOf(word, from);
  if (at < 0) return text;
  return [text.slice(0, at), html`<mark>${word}</mark>`, text.slice(at + word.length)];
}
