/** The request behind an answer as a program. */
import { session } from "../../lib/api.js";

const base = () => new URL("v1", document.baseURI).href;
const asksForKey = () => session.get()?.keys === true;
const pretty = (value) => JSON.stringify(value, null, 2);

function plain(body) {
  const { stream: _stream, stream_options: _options, ...rest } = body;
  return rest;
}

export function curl(body) {
  const quoted = pretty(plain(body)).replaceAll("'", "'\\''");
  const key = asksForKey() ? '  -H "Authorization: Bearer $YIBU_API_KEY" \\\n' : "";
  return `curl ${base()}/chat/completions \\\n  -H 'Content-Type: application/json' \\\n${key}  -d '${quoted}'\n`;
}

/** JSON as Python writes it. */
function python(value, indent) {
  const pad = "    ".repeat(indent);
  const inner = `${pad}    `;
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    return `[\n${value.map((one) => inner + python(one, indent + 1)).join(",\n")},\n${pad}]`;
  }
  if (typeof value === "object") {
    const rows = Object.entries(value).map(([name, one]) =>
      `${inner}${JSON.stringify(name)}: ${python(one, indent + 1)}`);
    return rows.length ? `{\n${rows.join(",\n")},\n${pad}}` : "{}";
  }
  return JSON.stringify(value);
}

export function pythonCode(body) {
  const fields = Object.entries(plain(body)).map(([name, value]) => `    ${name}=${python(value, 1)},`);
  const key = asksForKey() ? 'os.environ["YIBU_API_KEY"]' : '"none"';
  return `${asksForKey() ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url="${base()}", api_key=${key})
answer = client.chat.completions.create(
${fields.join("\n")}
)
print(answer.choices[0].message.content)
`;
}

export function javascript(body) {
  const key = asksForKey() ? "process.env.YIBU_API_KEY" : '"none"';
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${base()}", apiKey: ${key} });
const answer = await client.chat.completions.create(${pretty(plain(body))});
console.log(answer.choices[0].message.content);
`;
}
