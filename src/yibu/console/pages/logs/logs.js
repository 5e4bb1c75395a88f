/** Logs of the node and of the engines, as they are written. */
import { useAsked, useDebounced, useEnd, useTitle } from "../../lib/hooks.js";
import { html, useEffect, useMemo, useRef, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { bytes } from "../../lib/format.js";
import { download } from "../../lib/download.js";
import { overview } from "../../lib/live.js";
import { route } from "../../lib/router.js";
import { useStore } from "../../lib/store.js";
import { Icon } from "../../components/icon.js";
import { Notice } from "../../components/notice.js";
import { Line } from "./line.js";
import { useLines } from "./use_lines.js";

const ASK_EVERY_SECONDS = 15;
const MOST_NAME_CHARACTERS = 24;

function levels() {
  return [["", t("all levels")], ["info", t("info and worse")], ["warning", t("warnings and worse")], ["error", t("errors")]];
}

/** A model's name in the address means its replicas' logs. */
function logsOf(name, logs, models) {
  if (!name) return [];
  if (logs.some((log) => log.name === name)) return [name];
  return models.find((model) => model.name === name)?.replicas.map((one) => one.id) ?? [];
}

export function Logs() {
  useTitle(t("Logs"));
  const { rest } = useStore(route);
  const { data } = useAsked("console/api/logs", ASK_EVERY_SECONDS);
  const now = useStore(overview);
  const [chosen, setChosen] = useState(rest[0] ?? "");
  const [level, setLevel] = useState("");
  const [search, setSearch] = useState("");
  const [follows, setFollows] = useState(true);
  const [wraps, setWraps] = useState(true);
  useEffect(() => setChosen(rest[0] ?? ""), [rest[0]]);
  const logs = data?.logs ?? [];
  const names = useMemo(() => logsOf(chosen, logs, now?.models ?? []).join("\n"), [chosen, data, now]);
  const waiting = chosen !== "" && (!data || !names);
  const { lines, lost, error, clear } = useLines(
    { log: names ? names.split("\n") : [], level, search: useDebounced(search) }, follows, waiting);
  const list = useRef(null);
  const { toEnd, onScroll } = useEnd(list);
  useEffect(() => {
    if (follows) toEnd();
  }, [lines]);
  const longest = lines.reduce((most, line) => Math.max(most, line.log.length), 4);
  const width = Math.min(longest, MOST_NAME_CHARACTERS);
  const save = () => download("yibu.log",
    `${lines.map((line) => [line.time, line.log, line.text].filter(Boolean).join(" ")).join("\n")}\n`);
  return html`<div class="page fill"><div class="logs">
    <div class="logs-bar">
      <h1>${t("Logs")}</h1>
      <label class="visually-hidden" for="log-name">${t("Log")}</label>
      <select id="log-name" class="input" value=${chosen} onChange=${(event) => setChosen(event.target.value)}>
        <option value="" selected=${chosen === ""}>${t("all logs")}</option>
        ${(now?.models ?? []).map((model) => html`<option key=${`model ${model.name}`} value=${model.name} selected=${chosen === model.name}>
          ${t("{model}, all replicas", { model: model.name })}</option>`)}
        ${logs.map((log) => html`<option key=${log.name} value=${log.name} selected=${chosen === log.name}>
          ${t("{log} · {size}", { log: log.name, size: bytes(log.bytes) })}</option>`)}
      </select>
      <label class="visually-hidden" for="log-level">${t("Level")}</label>
      <select id="log-level" class="input" value=${level} onChange=${(event) => setLevel(event.target.value)}>
        ${levels().map(([value, text]) => html`<option key=${value} value=${value} selected=${level === value}>${text}</option>`)}</select>
      <div class="search"><${Icon} name="search" size=${15} />
        <label class="visually-hidden" for="log-search">${t("Search")}</label>
        <input id="log-search" class="input" type="search" data-search placeholder=${t("Search")} value=${search}
          onInput=${(event) => setSearch(event.target.value)} /></div>
      <button type="button" class="button small" aria-pressed=${follows ? "true" : "false"} onClick=${() => setFollows(!follows)}>
        <${Icon} name=${follows ? "pause" : "play"} size=${14} />${t("Follow")}</button>
      <button type="button" class="button small" aria-pressed=${wraps ? "true" : "false"} onClick=${() => setWraps(!wraps)}>${t("Wrap lines")}</button>
      <span class="end row"><span class="small muted">${t("{count} lines", { count: lines.length })}</span>
        <button type="button" class="button ghost small icon" aria-label=${t("Download these lines")} title=${t("Download these lines")} onClick=${save}>
          <${Icon} name="download" size=${14} /></button>
        <button type="button" class="button ghost small icon" aria-label=${t("Clear")} title=${t("Clear")} onClick=${clear}><${Icon} name="trash" size=${14} /></button></span>
    </div>
    ${error && html`<${Notice} kind="bad">${error.message}<//>`}
    ${lost > 0 && html`<${Notice} kind="warn">${t("The page read too slowly: {count} lines are missing.", { count: lost })}<//>`}
    <div class=${`logs-lines ${wraps ? "" : "no-wrap"}`} style=${{ "--name-width": `${width}ch` }} ref=${list} onScroll=${onScroll} tabindex="0" role="log" aria-live="off" aria-label=${t("Lines")}>
      ${!lines.length && html`<p class="muted log-line">${t("No line matches yet.")}</p>`}
      ${lines.map((line) => html`<${Line} key=${line.key} line=${line} search=${search} />`)}
    </div>
  </div></div>`;
}
