/** The microphone's samples at 24 kHz, in pieces of 100 ms. */
const RATE = 24000;

/** Starts to listen; `onSamples` gets each piece. Answers what stops it. Throws where the person refuses. */
export async function listen(onSamples) {
  if (!navigator.mediaDevices) throw new TypeError("mediaDevices");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const context = new AudioContext({ sampleRate: RATE });
  const stop = () => {
    stream.getTracks().forEach((track) => track.stop());
    if (context.state !== "closed") void context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("recorder_worklet.js", import.meta.url));
    const recorder = new AudioWorkletNode(context, "recorder");
    recorder.port.onmessage = ({ data }) => onSamples(data);
    context.createMediaStreamSource(stream).connect(recorder);
  } catch (error) {
    stop();
    throw error;
  }
  return stop;
}

export { RATE };
