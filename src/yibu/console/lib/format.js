/** Numbers, sizes and times as the reader's language writes them. */
import { locale, t } from "./i18n.js";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const NONE = "–";

export function number(value, digits = 0) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);
}

/** 1.2k, 3.4M; in Chinese 1.2万. */
export function compact(value) {
  if (value === null || value === undefined) return NONE;
  const options = { notation: "compact", maximumFractionDigits: 1 };
  return new Intl.NumberFormat(locale(), options).format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < UNITS.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${number(rest, rest < 10 && unit > 0 ? 1 : 0)} ${UNITS[unit]}`;
}

export function percent(share) {
  if (share === null || share === undefined || !Number.isFinite(share)) return NONE;
  const options = { style: "percent", maximumFractionDigits: 0 };
  return new Intl.NumberFormat(locale(), options).format(share);
}

/** 240 ms, 1.4 s, 3 min. */
export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 1) return `${number(value * 1000)} ms`;
  if (value < 60) return `${number(value, value < 10 ? 2 : 1)} s`;
  return duration(value);
}

/** 3 min 20 s, 5 h 2 min, 3 d 4 h, in two units. */
export function duration(value) {
  if (value === null || value === undefined) return NONE;
  const whole = Math.round(value);
  if (whole < 60) return t("{seconds} s", { seconds: whole });
  const minutes = Math.floor(whole / 60);
  if (minutes < 60 && whole % 60 === 0) return t("{minutes} min", { minutes });
  if (minutes < 60) return t("{minutes} min {seconds} s", { minutes, seconds: whole % 60 });
  const hours = Math.floor(minutes / 60);
  if (hours < 48 && minutes % 60 === 0) return t("{hours} h", { hours });
  if (hours < 48) return t("{hours} h {minutes} min", { hours, minutes: minutes % 60 });
  return t("{days} d {hours} h", { days: Math.floor(hours / 24), hours: hours % 24 });
}

/** 1:02.4, as subtitles and players show it. */
export function clock(value) {
  const minutes = Math.floor(value / 60);
  const rest = (value - minutes * 60).toFixed(1).padStart(4, "0");
  return `${minutes}:${rest}`;
}

/** `time` in Unix seconds, or as ISO 8601. */
export function dateTime(time) {
  if (time === null || time === undefined) return NONE;
  const options = { dateStyle: "medium", timeStyle: "short" };
  return new Intl.DateTimeFormat(locale(), options).format(new Date(typeof time === "number" ? time * 1000 : time));
}
