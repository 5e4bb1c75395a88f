/** A picture as a data URL that a model takes: at most 1568 pixels a side. */
import { t } from "../../lib/i18n.js";

const LONGEST_SIDE = 1568;

export async function pictureUrl(file) {
  const bitmap = await createImageBitmap(file).catch((error) => {
    console.info(`${file.name} is shown by no browser`, error);
    throw new Error(t("{file} is no picture that this browser can read.", { file: file.name }));
  });
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return file.type === "image/jpeg" ? canvas.toDataURL("image/jpeg", 0.9) : canvas.toDataURL("image/png");
}
