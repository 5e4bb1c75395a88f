/** yibu.yaml: checked as it is typed, compared, applied, rolled back. */
import { ask } from "../../lib/api.js";
import { useAsked, useDebounced, useKept, useTitle } from "../../lib/hooks.js";
import { html, useEffect, useRef, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { dateTime } from "../../lib/format.js";
import { attempt, toast } from "../../lib/toasts.js";
import { confirm } from "../../components/confirm.js";
import { Copy } from "../../components/copy.js";
import { Notice, Spinner } from "../../components/notice.js";
import { ApplyDialog } from "./apply_dialog.js";
import { Editor } from "./editor.js";
import { Faults } from "./faults.js";
import { History } from "./history.js";

const CHECK_MILLISECONDS = 400;

export function Configuration() {
  useTitle(t("Configuration"));
  const { data, error, reload } = useAsked("console/api/config");
  if (error && !data) return html`<div class="page"><${Notice} kind="bad">${error.message}<//></div>`;
  if (!data) return html`<div class="loading"><${Spinner} label=${t("Loading")} /></div>`;
  return html`<${Editing} key=${data.sha256} file=${data} reload=${reload} />`;
}

/** What the node says of the text, a moment after it was typed. */
function useCheck(text) {
  const settled = useDebounced(text, CHECK_MILLISECONDS);
  const [checked, setChecked] = useState(null);
  useEffect(() => {
    const aborter = new AbortController();
    ask("console/api/config/check", { method: "POST", json: { text: settled }, signal: aborter.signal })
      .then((answer) => setChecked({ ...answer, text: settled }),
        (error) => aborter.signal.aborted || toast(error.message, "bad"));
    return () => aborter.abort();
  }, [settled]);
  return checked;
}

function Editing({ file, reload }) {
  const [draft, setDraft] = useKept("config.draft", null);
  const text = draft?.text ?? file.text;
  const setText = (now) => setDraft(now === file.text ? null : { text: now, sha256: draft?.sha256 ?? file.sha256 });
  const [difference, setDifference] = useState(null);
  const editor = useRef(null);
  const checked = useCheck(text);
  const changed = text !== file.text;
  const fresh = checked?.text === text;
  const compare = () => attempt(async () =>
    setDifference(await ask("console/api/config/diff", { method: "POST", json: { text } })));
  const apply = () => attempt(async () => {
    await ask("console/api/config/apply", { method: "POST", json: { text, sha256: draft?.sha256 ?? file.sha256 } });
    setDifference(null);
    setDraft(null);
    toast(t("The configuration is being applied."), "ok");
    await reload();
  });
  const rollback = async ({ until, models }) => {
    const agreed = await confirm({
      title: t("Roll back?"), action: t("Roll back"),
      text: t("What was served until {time} is served again: {models}. The file stays as it is.", {
        time: dateTime(until), models: models.join(", ") || t("no models") }),
    });
    if (!agreed) return;
    await attempt(async () => {
      await ask("console/api/config/rollback", { method: "POST", json: { until } });
      toast(t("What was served then is being put up again."), "ok");
      await reload();
    });
  };
  return html`<div class="page">
    <div class="page-head"><h1>${t("Configuration")}</h1>
      <span class="muted row"><span class="mono">${file.path}</span><${Copy} text=${file.path} label=${t("Copy the path")} /></span>
      <span class="end row wrap">
        <button type="button" class="button" disabled=${!file.previous} onClick=${() => rollback(file.previous)}>${t("Roll back")}</button>
        <button type="button" class="button" disabled=${!changed} onClick=${() => setDraft(null)}>${t("Discard changes")}</button>
        <button type="button" class="button primary" disabled=${!fresh || !checked.ok} onClick=${compare}>${t("Compare and apply")}</button>
      </span></div>
    ${draft && draft.sha256 !== file.sha256 && html`<${Notice} kind="warn">${t("The file has been changed since you began to edit it. Discard your changes to see it as it is.")}<//>`}
    ${!file.exists && html`<${Notice}>${t("The file does not exist yet. Applying writes it.")}<//>`}
    <${Editor} control=${editor} text=${text} onText=${setText} faults=${fresh ? checked.faults : []} />
    <${Faults} checked=${fresh ? checked : null} onLine=${(line) => editor.current?.goTo(line)} />
    ${file.history.length > 0 && html`<${History} history=${file.history} onRollback=${rollback} />`}
    ${difference && html`<${ApplyDialog} difference=${difference} onApply=${apply} onClose=${() => setDifference(null)} />`}
  </div>`;
}
