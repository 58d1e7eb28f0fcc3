// The fleet: what it waits for, its machines, its queues.
import { ask, post } from "/page/api.js";
import { clock, h, size, table } from "/page/dom.js";
import { t } from "/page/language.js";
import { attempt } from "/page/main.js";

const AGAIN_MS = 2000;

export async function fleet(_, signal) {
  const box = h("div");
  const read = () => attempt(async () => {
    const view = await ask("/api/v1/fleet");
    if (!signal.aborted) box.replaceChildren(...parts(view, read));
  });
  await read();
  const timer = setInterval(() => { if (!document.hidden && !box.contains(document.activeElement)) read(); }, AGAIN_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return [h("h1", {}, t("fleet")), box];
}

function parts(view, read) {
  const busy = view.queues.filter((queue) => queue.messages || queue.in_flight);
  return [
    h("p", { class: "note" }, h("strong", {}, t("bottleneck")), h("br"), view.bottleneck),
    h("h2", {}, t("workers")),
    view.workers.length ? h("div", { class: "grid" }, view.workers.map((worker) => machine(worker, read))) : h("p", { class: "note" }, t("noWorkers")),
    ...(view.rigs.length ? [h("h2", {}, t("rigs")), table(t("rigs"), [
      [t("rig"), (each) => each.rig, "name"], [t("host"), (each) => each.host], [t("state"), (each) => each.state],
      [t("workers"), (each) => each.workers.length, "number"], [t("actions"), (each) => orders("rigs", each.rig, each.order, read)],
    ], view.rigs, (each) => each.rig)] : []),
    h("h2", {}, t("queues")),
    busy.length ? table(t("queues"), [
      [t("pipeline"), (each) => each.pipeline, "name"], [t("stage"), (each) => each.stage],
      [t("waiting"), (each) => (each.interactive + each.bulk).toLocaleString(), "number"], [t("inFlight"), (each) => each.in_flight.toLocaleString(), "number"],
      [t("bytes"), (each) => `${size(each.bytes)} / ${size(each.limit_bytes)}`, "number"], [t("oldest"), (each) => (each.messages ? clock(each.oldest_s) : "–"), "number"],
    ], busy, (each) => `${each.pipeline}.${each.stage}`) : h("p", { class: "soft" }, t("emptyQueues")),
    h("p", { class: "soft" }, t("stored", { bytes: size(view.store_bytes) })),
  ];
}

function machine(worker, read) {
  const gpu = worker.gpu ?? {}, step = worker.step;
  const facts = [
    [t("device"), gpu.name ? `${worker.device}, ${gpu.name}` : worker.device], [t("state"), worker.why ? `${worker.state}: ${worker.why}` : worker.state],
    [t("doing"), step ? `${step.pipeline} ${step.stage}, ${step.seconds.toFixed(1)} s` : null], [t("stages"), worker.stages.join(", ")],
    [t("holds"), worker.in_flight], [t("memory"), size(worker.rss_bytes)],
    [t("temperature"), gpu.temperature_c === undefined ? null : `${gpu.temperature_c} °C`], [t("power"), gpu.power_w === undefined ? null : `${gpu.power_w} W`],
  ].filter(([, value]) => value !== null && value !== undefined);
  return h("section", { class: "card", "aria-label": worker.worker }, h("h3", {}, worker.worker), h("dl", {}, facts.map(([title, value]) => [h("dt", {}, title), h("dd", {}, String(value))])), orders("workers", worker.worker, worker.order, read));
}

function orders(kind, name, order, read) {
  const button = (action, title) => h("button", { type: "button", class: "quiet", "aria-label": `${title}: ${name}`, onclick: async () => {
    await attempt(() => post(`/api/v1/${kind}/${encodeURIComponent(name)}/${action}`));
    document.activeElement?.blur();
    read();
  } }, title);
  return h("div", { class: "row" }, order === "work" ? [button("cordon", t("cordon")), button("drain", t("drain"))] : button("resume", t("resume")));
}
