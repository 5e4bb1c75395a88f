/** A recording to the speech API. */
import { send } from "../../lib/api.js";

/** {result, seconds}: `result` is the API's verbose_json; with times of words where the model knows them. */
export async function transcribe(file, model, settings, signal) {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  try {
    return { result: await asked(file, model, settings, signal, ["segment", "word"]), seconds: seconds() };
  } catch (error) {
    if (!error.param?.startsWith("timestamp_granularities")) throw error;
    return { result: await asked(file, model, settings, signal, ["segment"]), seconds: seconds() };
  }
}

async function asked(file, model, settings, signal, granularities) {
  const form = new FormData();
  form.append("model", model); // before the file, so that the upload streams to the engine
  form.append("response_format", "verbose_json");
  for (const one of granularities) form.append("timestamp_granularities[]", one);
  if (settings.language) form.append("language", settings.language);
  if (settings.prompt.trim()) form.append("prompt", settings.prompt.trim());
  form.append("file", file, file.name);
  const answer = await send("v1/audio/transcriptions", { method: "POST", body: form, signal });
  const result = await answer.json();
  return { ...result, segments: result.segments ?? [] };
}
