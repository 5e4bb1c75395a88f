import { ask } from "../../lib/api.js";
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { compact, dateTime } from "../../lib/format.js";
import { attempt } from "../../lib/toasts.js";
import { confirm } from "../../components/confirm.js";
import { Menu } from "../../components/menu.js";

const GRACE = "1h";
const KINDS = { active: "ok", expired: "bad", replaced: "warn", removed: "bad" };

export const keyPath = (name, verb = "") =>
  `console/api/keys/${encodeURIComponent(name)}${verb && `/${verb}`}`;

function stateText(state) {
  return { active: t("active"), expired: t("expired"), replaced: t("replaced"), removed: t("removed") }[state] ?? state;
}

function limits(row) {
  return [
    row.rpm && t("{count} requests/min", { count: row.rpm }),
    row.tpm && t("{count} tokens/min", { count: compact(row.tpm) }),
    row.concurrency && t("{count} at once", { count: row.concurrency }),
    row.budget && t("budget {budget}", { budget: budgetText(row.budget) }),
  ].filter(Boolean).join(" · ");
}

export function budgetText(budget) {
  return typeof budget === "object" ? `${compact(budget.tokens ?? budget.limit)}/${budget.period}` : String(budget);
}

export function KeyRow({ row, onEdit, onDone }) {
  const rotate = async () => {
    const agreed = await confirm({
      title: t("Replace the key {name}?", { name: row.name }), action: t("Replace"),
      text: t("A new key is made. The old one works for an hour more."),
    });
    if (!agreed) return;
    await attempt(async () => onDone(await ask(keyPath(row.name, "rotate"), { method: "POST", json: { grace: GRACE } })));
  };
  const remove = async () => {
    const agreed = await confirm({
      title: t("Remove the key {name}?", { name: row.name }), action: t("Remove"), danger: true,
      text: t("Programs that use it are refused from now on. Its usage is kept."),
    });
    if (!agreed) return;
    await attempt(async () => {
      await ask(keyPath(row.name), { method: "DELETE" });
      onDone(null);
    });
  };
  return html`<tr>
    <td><div class="row wrap"><strong>${row.name}</strong>${row.admin && html`<span class="badge plain busy">${t("admin")}</span>`}
      ${row.priority === "batch" && html`<span class="badge plain">${t("batch")}</span>`}
      ${row.weight > 1 && html`<span class="badge plain">${t("weight {n}", { n: row.weight })}</span>`}</div>
      <span class="small muted mono">${row.prefixes.map((prefix) => `${prefix}…`).join(", ")}</span></td>
    <td><span class=${`badge ${KINDS[row.state] ?? ""}`}>${stateText(row.state)}</span></td>
    <td>${row.models?.length ? row.models.join(", ") : html`<span class="muted">${t("all")}</span>`}</td>
    <td>${limits(row) || html`<span class="muted">${t("none")}</span>`}</td>
    <td class="nowrap">${row.expires ? dateTime(row.expires) : html`<span class="muted">${t("never")}</span>`}</td>
    <td><${Menu} label=${t("Actions for {name}", { name: row.name })} small=${false} items=${[
      { label: t("Edit limits"), icon: "edit", run: onEdit },
      { label: t("Replace"), icon: "restart", run: rotate },
      { label: t("Remove"), icon: "trash", run: remove },
    ]} /></td>
  </tr>`;
}
