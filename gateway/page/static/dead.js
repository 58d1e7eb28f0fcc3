// Dead letters: what failed for good, to be sent again or dropped.
import { ask, post, remove } from "/page/api.js";
import { repeat } from "/page/connection.js";
import { sure } from "/page/dialog.js";
import { button, english, h, nothing, raw, redraw, table } from "/page/dom.js";
import { moment, size } from "/page/format.js";
import { icon } from "/page/icons.js";
import { t } from "/page/language.js";
import { attempt } from "/page/main.js";

const AGAIN_MS = 5000, PAGE = 100;

export async function deadLetters(_, signal, acts) {
  const box = h("div");
  let after = [0];
  const draw = async () => {
    const page = await ask(`/api/v1/dead-letters?limit=${PAGE}&after=${after.at(-1)}`, { signal });
    if (!signal.aborted) redraw(box, ...(page.letters.length ? [rows(page.letters), turn(page, after)] : [nothing(icon("letter"), t("noLetters"))]));
  };
  const read = () => attempt(draw);
  const act = async (does) => { await attempt(does); await read(); };
  acts.retry = (element) => act(() => post(`/api/v1/dead-letters/${element.dataset.number}/retry`));
  acts.drop = async (element) => {
    const { number } = element.dataset;
    if (await sure(t("confirmDrop", { number }), t("drop"))) await act(() => remove(`/api/v1/dead-letters/${number}`));
  };
  acts.following = (element) => { after.push(Number(element.dataset.after)); read(); };
  acts.before = () => { after.pop(); read(); };
  await draw();
  repeat(read, AGAIN_MS, signal);
  return [h("h1", {}, t("dead")), box];
}

function turn(page, after) {
  if (!page.next && after.length < 2) return "";
  return h("nav", { class: "row end", "aria-label": t("pages") }, button("before", `← ${t("previous")}`, { disabled: after.length < 2 }), button("following", `${t("next")} →`, { disabled: !page.next, values: { after: page.next ?? 0 } }));
}

function rows(letters) {
  const made = (each, act, kind) => button(act, t(act), { kind, values: { number: each.number }, label: `${t(act)}: ${each.number}` });
  return table(t("dead"), [
    [t("job"), (each) => h("a", { href: `#job/${encodeURIComponent(each.job)}`, class: "id" }, raw(each.job)), "place"],
    [t("stage"), (each) => raw(`${each.pipeline} ${each.stage}`)],
    [t("place"), (each) => (each.segment < 0 ? t("wholeJob") : t("segment", { number: each.segment })), "place"],
    [t("reason"), (each) => english(each.error), "name"],
    [t("when"), (each) => moment(each.at), "place"],
    [t("input"), (each) => size(each.input_bytes), "number"],
    [t("actions"), (each) => h("span", { class: "row" }, made(each, "retry", "quiet"), made(each, "drop", "danger")), "acts"],
  ], letters, (each) => String(each.number));
}
