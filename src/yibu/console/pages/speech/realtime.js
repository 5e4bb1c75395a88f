/** A session of OpenAI's Realtime API for transcription: the microphone's samples out, texts in. */
import { address } from "../../lib/api.js";
import { t } from "../../lib/i18n.js";
import { RATE, listen } from "../../lib/microphone.js";
import { pcm16 } from "../../lib/wave.js";

const PREFIX = "conversation.item.input_audio_transcription.";
const LAST_TEXTS_MILLISECONDS = 15_000;

function opened(model) {
  const url = new URL(address("v1/realtime"));
  url.protocol = url.protocol.replace("http", "ws");
  url.search = new URLSearchParams({ intent: "transcription", model });
  const socket = new WebSocket(url, ["realtime"]);
  return new Promise((resolve, reject) => {
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error(t("The live session cannot be opened. The log of the node says why.")));
  });
}

const loudness = (samples) =>
  Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);

/** Opens the microphone and a session; {finish, close}: end it after the last text, or at once. */
export async function openSession(settings, { onText, onLevel, onError, onEnd }) {
  const socket = await opened(settings.models[0]);
  const say = (event) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(event));
  const pending = new Set();
  let ending = false;
  let stopMicrophone = () => null;
  const close = () => {
    stopMicrophone();
    socket.close();
  };
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "error") {
      if (!(ending && event.error.code === "input_audio_buffer_commit_empty")) onError(event.error.message);
      if (ending && !pending.size) close();
    } else if (event.type === "input_audio_buffer.committed") pending.add(event.item_id);
    else if (event.type === `${PREFIX}delta`) onText(event.item_id, { text: event.delta, final: false });
    else if (event.type === `${PREFIX}completed`) {
      if (event.transcript.trim()) onText(event.item_id, { text: event.transcript.trim(), final: true });
      pending.delete(event.item_id);
      if (ending && !pending.size) close();
    }
  };
  socket.onclose = () => {
    stopMicrophone();
    onEnd();
  };
  const transcription = {
    model: settings.models[0],
    ...(settings.language ? { language: settings.language } : {}),
    ...(settings.prompt.trim() ? { prompt: settings.prompt.trim() } : {}),
  };
  const format = { type: "audio/pcm", rate: RATE };
  say({ type: "session.update", session: { type: "transcription", audio: { input: { format, transcription } } } });
  try {
    stopMicrophone = await listen((samples) => {
      onLevel(loudness(samples));
      say({ type: "input_audio_buffer.append", audio: pcm16(samples) });
    });
  } catch (error) {
    socket.close();
    throw error;
  }
  const finish = () => {
    ending = true;
    stopMicrophone();
    say({ type: "input_audio_buffer.commit" });
    setTimeout(() => socket.close(), LAST_TEXTS_MILLISECONDS);
  };
  return { finish, close };
}
