// Dead letters: what failed for good, to be sent again or dropped.
import { ask, post, remove } from "/page/api.js";
import { h, size, table } from "/page/dom.js";
import { t } from "/page/language.js";
import { moment } from "/page/jobs.js";
import { attempt } from "/page/main.js";

export async function deadLetters(_, signal) {
  const box = h("div");
  const read = () => attempt(async () => {
    const { letters } = await ask("/api/v1/dead-letters?limit=200");
    if (!signal.aborted) box.replaceChildren(letters.length ? rows(letters, read) : h("p", { class: "note" }, t("noLetters")));
  });
  await read();
  return [h("div", { class: "row end" }, h("h1", {}, t("dead")), h("button", { type: "button", class: "quiet", onclick: read }, t("refresh"))), box];
}

function rows(letters, read) {
  const act = (title, kind, action, question) => h("button", { type: "button", class: kind, onclick: async () => {
    if (question && !confirm(question)) return;
    await attempt(action);
    read();
  } }, title);
  return table(t("dead"), [
    [t("job"), (each) => h("a", { href: `#job/${each.job}`, class: "id" }, each.job)],
    [t("stage"), (each) => `${each.pipeline} ${each.stage}`],
    [t("place"), (each) => (each.segment < 0 ? t("wholeJob") : t("segment", { number: each.segment })), "place"],
    [t("reason"), (each) => each.error, "name"],
    [t("when"), (each) => moment(each.at), "place"],
    [t("input"), (each) => size(each.input_bytes), "number"],
    [t("actions"), (each) => h("span", { class: "row" },
      act(t("retry"), "quiet", () => post(`/api/v1/dead-letters/${each.number}/retry`)),
      act(t("drop"), "danger", () => remove(`/api/v1/dead-letters/${each.number}`), t("confirmDrop", { number: each.number })))],
  ], letters, (each) => String(each.number));
}
