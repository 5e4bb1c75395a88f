/** Segments as files: SubRip, WebVTT, text, JSON. */
function stamp(seconds, mark) {
  const milliseconds = Math.round(seconds * 1000);
  const part = (size, length, modulo) =>
    String(Math.floor(milliseconds / size) % modulo).padStart(length, "0");
  const hours = String(Math.floor(milliseconds / 3_600_000)).padStart(2, "0");
  return `${hours}:${part(60_000, 2, 60)}:${part(1000, 2, 60)}${mark}${part(1, 3, 1000)}`;
}

const spoken = (segment) => (segment.speaker ? `${segment.speaker}: ` : "") + segment.text.trim();

export const srt = (segments) => segments.map((segment, index) =>
  `${index + 1}\n${stamp(segment.start, ",")} --> ${stamp(segment.end, ",")}\n${spoken(segment)}\n`).join("\n");

export const vtt = (segments) => `WEBVTT\n\n${segments.map((segment) =>
  `${stamp(segment.start, ".")} --> ${stamp(segment.end, ".")}\n${spoken(segment)}\n`).join("\n")}`;

export const plain = (segments) => `${segments.map(spoken).join("\n")}\n`;
