/** One plot, with its last values in the legend. */
import { coloursOf } from "../../lib/colours.js";
import { bytes } from "../../lib/format.js";
import { html, useEffect, useRef, useState } from "../../lib/html.js";
import { locale, t } from "../../lib/i18n.js";
import { plot as loadPlot } from "../../lib/load.js";
import { useStore } from "../../lib/store.js";
import { chosenTheme } from "../../lib/theme.js";

const HEIGHT = 190;
const COLOURS = 6;
const DAY_SECONDS = 86400;
const POWERS_OF_TWO = Array.from({ length: 50 }, (_, power) => 2 ** power);

function timeFormat(span) {
  const options = span > DAY_SECONDS ? { month: "numeric", day: "numeric", hour: "2-digit" }
    : { hour: "2-digit", minute: "2-digit" };
  return new Intl.DateTimeFormat(locale(), { ...options, hour12: false });
}

function lastOf(values) {
  for (let index = values.length - 1; index >= 0; index -= 1) {
    if (values[index] !== null) return values[index];
  }
  return null;
}

function options(width, element, series, span, format) {
  const lines = series.map((_, index) => `--series-${(index % COLOURS) + 1}`);
  const colours = coloursOf(element, ["--muted", "--border", ...lines]);
  const axis = { stroke: colours["--muted"], grid: { stroke: colours["--border"], width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const time = timeFormat(span);
  const shown = (value) => (value === null || value === undefined ? "–" : format(value));
  return {
    width, height: HEIGHT, padding: [8, 8, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    legend: { live: true, markers: { width: 0, fill: (plot, index) => plot.series[index].stroke() } },
    scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.08 : 1] } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map((tick) => time.format(new Date(tick * 1000))), space: 70, size: 26 },
      { ...axis, values: (_, ticks) => ticks.map(shown), size: 64, ...(format === bytes && { incrs: POWERS_OF_TWO }) },
    ],
    series: [
      { label: t("Time"), value: (_, value) => (value === null ? "–" : time.format(new Date(value * 1000))) },
      ...series.map(({ label, values }, index) => ({
        label, stroke: colours[lines[index]], width: 1.5, spanGaps: false, points: { show: false },
        value: (_, value, __, at) => shown(at === null ? lastOf(values) : value),
      })),
    ],
  };
}

export function Plot({ title, start, step, points, series, format }) {
  const element = useRef(null);
  const drawn = useRef(null);
  const theme = useStore(chosenTheme);
  const [error, setError] = useState(null);
  const labels = series.map(({ label }) => label).join("\n");
  const data = [Array.from({ length: points }, (_, index) => start + index * step), ...series.map(({ values }) => values)];
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    let gone = false;
    const resize = new ResizeObserver(() =>
      element.current && drawn.current?.setSize({ width: element.current.clientWidth, height: HEIGHT }));
    loadPlot().then((Library) => {
      if (gone || !element.current) return; // the page was left meanwhile
      const how = options(element.current.clientWidth, element.current, series, step * points, format);
      drawn.current = new Library(how, latest.current, element.current);
      resize.observe(element.current);
    }, setError);
    return () => {
      gone = true;
      resize.disconnect();
      drawn.current?.destroy();
      drawn.current = null;
    };
  }, [labels, theme, step, locale()]);
  useEffect(() => drawn.current?.setData(data), [start, points, series]);
  const summary = series.map(({ label, values }) => {
    const last = lastOf(values);
    return t("{name}: {value}", { name: label, value: last === null ? "–" : format(last) });
  }).join(", ");
  return html`<figure class="card plot"><figcaption><h2>${title}</h2>
      <span class="visually-hidden">${t("Now: {summary}", { summary })}</span></figcaption>
    <div ref=${element} aria-hidden="true"></div>${error && html`<p class="bad">${error.message}</p>`}</figure>`;
}
