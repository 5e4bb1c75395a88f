/** Sound for the eye and for the engine: peaks of a recording, and samples as PCM16. */

/** Files above this are not decoded in the page: an hour of stereo takes a gigabyte there. */
export const MOST_DECODED_BYTES = 64 * 2 ** 20;
const PEAKS_RATE = 16000;

/** {duration, peaks}: the loudest sample of each of `count` stretches, 0 to 1; null where it cannot be read. */
export async function peaksOf(file, count = 900) {
  if (file.size > MOST_DECODED_BYTES) return null;
  const context = new OfflineAudioContext(1, 1, PEAKS_RATE);
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch (error) {
    console.info(`${file.name}: this browser shows no waveform of it`, error);
    return null;
  }
  const samples = buffer.getChannelData(0);
  const width = samples.length / count;
  const peaks = new Float32Array(count);
  for (let index = 0; index < count; index += 1) {
    let top = 0;
    const end = Math.min(samples.length, Math.ceil((index + 1) * width));
    for (let at = Math.floor(index * width); at < end; at += 1) top = Math.max(top, Math.abs(samples[at]));
    peaks[index] = top;
  }
  return { duration: buffer.duration, peaks };
}

/** Samples of -1 to 1 as little-endian PCM16 in base64. */
export function pcm16(samples) {
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, index) => {
    view.setInt16(index * 2, Math.max(-1, Math.min(1, sample)) * 32767, true);
  });
  return btoa(String.fromCharCode(...new Uint8Array(view.buffer)));
}
