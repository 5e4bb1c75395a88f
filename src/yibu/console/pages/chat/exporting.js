/** The conversation as a file. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { download } from "../../lib/download.js";
import { Menu } from "../../components/menu.js";

function markdown(conversation) {
  const parts = [`# ${conversation.title}`];
  for (const turn of conversation.turns) {
    parts.push(`## ${t("Question")}`, turn.text);
    turn.answers.forEach((steps, column) => {
      parts.push(`## ${conversation.models[column]}`);
      for (const step of steps) {
        parts.push(step.content);
        for (const call of step.toolCalls) {
          parts.push(`\`\`\`json\n${JSON.stringify(call, null, 2)}\n\`\`\``);
        }
      }
    });
  }
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

export function Exporting({ conversation }) {
  return html`<${Menu} label=${t("Export")} icon="download" items=${[
    {
      label: t("Export as Markdown"), disabled: !conversation.turns.length,
      run: () => download("conversation.md", markdown(conversation), "text/markdown"),
    },
    {
      label: t("Export as JSON"), disabled: !conversation.turns.length,
      run: () => download("conversation.json", JSON.stringify(conversation, null, 2), "application/json"),
    },
  ]} />`;
}
