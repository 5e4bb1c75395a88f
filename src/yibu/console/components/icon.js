/** Line icons on a grid of 24, drawn for this page. */
import { html } from "../lib/html.js";

const PATHS = {
  overview: "M4 5h7v6H4zM13 5h7v9h-7zM4 13h7v6H4zM13 16h7v3h-7z",
  deploy: "M12 15V4M8 8l4-4 4 4M5 14v5h14v-5",
  chat: "M4 5h16v11H9l-5 4z",
  speech: "M12 4a3 3 0 0 1 3 3v4a3 3 0 0 1-6 0V7a3 3 0 0 1 3-3zM6 11a6 6 0 0 0 12 0M12 17v3",
  logs: "M5 6h14M5 10h9M5 14h14M5 18h7",
  metrics: "M4 19V5M4 19h16M8 15l3-4 3 2 5-7",
  keys: "M14.500 4a5.500 5.500 0 1 1-4.900 8L8 13.500V16H5.500v2.500H3V16l6.100-6A5.500 5.500 0 0 1 14.500 4zM16 8v.01",
  config: "M5 7h8M17 7h2M5 12h2M11 12h8M5 17h10M19 17v0M13 5v4M9 10v4M15 15v4",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6 6 18",
  play: "M8 5l11 7-11 7z",
  stop: "M7 7h10v10H7z",
  pause: "M8 5v14M16 5v14",
  restart: "M19 12a7 7 0 1 1-2-4.900M19 4v4h-4",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  check: "M5 13l4 4L19 7",
  alert: "M12 4 3 20h18zM12 10v4M12 17v.01",
  info: "M12 3a9 9 0 1 1 0 18 9 9 0 0 1 0-18zM12 11v5M12 8v.01",
  plus: "M12 5v14M5 12h14",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  edit: "M5 19l1-4L16 5l3 3L9 18z",
  search: "M10.500 4a6.500 6.500 0 1 1 0 13 6.500 6.500 0 0 1 0-13zM15.500 15.500 20 20",
  send: "M12 19V5M6 11l6-6 6 6",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M9 9v.01",
  tool: "M15 4a4.500 4.500 0 0 0-4 6.500L4 17.500 6.500 20l7-7A4.500 4.500 0 0 0 20 9l-3 2-3-3 2-3z",
  sliders: "M5 7h9M18 7h1M5 12h2M11 12h8M5 17h7M16 17h3M14 5v4M9 10v4M12 15v4",
  download: "M12 4v11M8 11l4 4 4-4M5 19h14",
  more: "M12 6v.01M12 12v.01M12 18v.01",
  code: "M8 7l-5 5 5 5M16 7l5 5-5 5",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.400 1.400M17.600 17.600 19 19M19 5l-1.400 1.400M6.400 17.600 5 19",
  moon: "M19 14.500A8 8 0 0 1 9.500 5 8 8 0 1 0 19 14.500z",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  signout: "M14 5H5v14h9M10 12h10M16 8l4 4-4 4",
  pin: "M9 4h6l-1 6 3 3H7l3-3zM12 13v7",
  columns: "M4 5h16v14H4zM12 5v14",
  chevron: "M9 6l6 6-6 6",
  key: "M8 11a4 4 0 1 0 0 2h5v3h3v-3h4v-2z",
};

/** Decoration: the control around it has a text or a label. */
export function Icon({ name, size = 16 }) {
  return html`<svg width=${size} height=${size} viewBox="0 0 24 24" fill="none" stroke="currentColor"
    stroke-width=${name === "more" ? 3 : 1.8} stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"
    focusable="false"><path d=${PATHS[name]} /></svg>`;
}
