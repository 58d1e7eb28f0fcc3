// The fleet: what it waits for, its machines and their cards, its queues.
import { ask, post } from "/page/api.js";
import { repeat } from "/page/connection.js";
import { sure } from "/page/dialog.js";
import { announce, button, english, facts, h, nothing, raw, redraw, table } from "/page/dom.js";
import { clock, moment, number, percent, size } from "/page/format.js";
import { icon } from "/page/icons.js";
import { many, t, word } from "/page/language.js";
import { attempt } from "/page/main.js";

const AGAIN_MS = 2000; // workers report as often
const SILENT_S = 8, MOST_STAGES = 4;

export async function fleet(_, signal, acts) {
  const box = h("div");
  const draw = async () => {
    const view = await ask("/api/v1/fleet", { signal });
    if (!signal.aborted) redraw(box, ...parts(view));
  };
  for (const order of ["cordon", "drain", "resume"]) acts[order] = async (element) => {
    const { kind, name } = element.dataset;
    if (order === "drain" && !await sure(t("confirmDrain", { name }), t("drain"))) return;
    if (await attempt(async () => { await post(`/api/v1/${kind}/${encodeURIComponent(name)}/${order}`); return true; })) announce(`${t(order)}: ${name}`);
    await attempt(draw);
  };
  await draw();
  repeat(() => attempt(draw), AGAIN_MS, signal);
  return [h("h1", {}, t("fleet")), box];
}

function parts(view) {
  const busy = view.queues.filter((queue) => queue.messages || queue.in_flight);
  const rigs = new Map(view.rigs.map((rig) => [rig.rig, []])), alone = [];
  for (const worker of view.workers) (rigs.get(worker.rig) ?? alone).push(worker);
  const out = new Map((view.cards ?? []).map((card) => [card.card, card]));
  for (const worker of view.workers) if (out.has(worker.card)) worker.quarantined = out.get(worker.card).why;
  return [
    h("div", { class: "note" }, h("strong", {}, t("bottleneck")), h("br"), english(view.bottleneck)),
    h("p", { class: "stats" }, many("workersCount", view.workers.length), h("span", {}, t("stored", { bytes: size(view.store_bytes) })), view.dead_letters ? h("a", { href: "#dead" }, many("deadCount", view.dead_letters)) : ""),
    view.workers.length || view.rigs.length ? null : nothing(icon("chip"), t("noWorkers"), h("p", {}, h("code", { translate: "no" }, "rigflow up"))),
    ...view.rigs.map((rig) => machine(rig, rigs.get(rig.rig))),
    alone.length ? [h("h2", {}, t("workers")), h("div", { class: "grid" }, alone.map((worker) => card(worker)))].flat() : [],
    h("h2", {}, t("queues")), busy.length ? queues(busy) : h("p", { class: "soft" }, t("emptyQueues")),
  ].flat().filter(Boolean);
}

function machine(rig, workers) {
  const ended = rig.state === "lost" || rig.state === "stopped";
  const since = ended ? h("span", {}, `${t("since")} `, moment(rig.since_s || rig.at_s)) : null;
  const titled = rig.host && rig.host !== rig.rig ? h("span", { class: "soft" }, raw(rig.host)) : null;
  return h("section", { class: ended ? "rig ended" : "rig", "aria-label": rig.rig, "data-key": `rig ${rig.rig}` },
    h("div", { class: "bar" }, h("h2", {}, raw(rig.rig)), titled, state(rig.state), since, ended ? null : h("div", { class: "push" }, orders("rigs", rig.rig, rig.order))),
    workers.length ? h("div", { class: "grid" }, workers.map((worker) => card(worker, slot(rig, worker)))) : h("p", { class: "soft" }, many("rigWorkers", rig.workers.length)),
    ended ? null : absent(rig, workers));
}

const slot = (rig, worker) => rig.workers.find((each) => each.worker === worker.worker);

/** Workers that have no process, by what their rig says. */
function absent(rig, workers) {
  const seen = new Set(workers.map((worker) => worker.worker)), gone = rig.workers.filter((each) => !seen.has(each.worker));
  return gone.length ? h("ul", { class: "plain soft" }, gone.map((each) => h("li", {}, raw(each.worker), " ", state(each.state), " ", each.why ? english(each.why) : ""))) : null;
}

const state = (name, why = "") => h("span", { class: `state ${name.replace(/ /g, "-")}` }, word("state", name), why ? h("span", { class: "soft" }, t("colon"), english(why)) : null);

function card(worker, known = null) {
  const gpu = worker.gpu ?? {}, step = worker.step, silent = Date.now() / 1000 - worker.at_s;
  const busy = Math.min(1, worker.done.reduce((sum, each) => sum + each.busy, 0));
  const speeds = worker.done.filter((each) => each.frames_per_s > 0.05).sort((a, b) => b.busy - a.busy).slice(0, MOST_STAGES).map((each) => h("li", {}, raw(`${each.pipeline} ${each.stage}`), " ", t("rate", { rate: number(each.frames_per_s, 1) })));
  return h("section", { class: "card", "aria-label": worker.worker, "data-key": `worker ${worker.worker}` },
    h("div", { class: "bar" }, h("h3", {}, raw(worker.worker)), silent > SILENT_S ? h("span", { class: "state lost" }, t("silent", { time: clock(silent) })) : state(worker.state)),
    worker.quarantined ? h("p", { class: "state quarantined" }, english(worker.quarantined)) : null,
    worker.why ? h("p", { class: "soft" }, english(worker.why)) : null,
    ...meters(gpu.sensors ?? {}, busy),
    facts([
      [t("device"), gpu.name ? raw(`${worker.device} ${gpu.name}`) : raw(worker.device)],
      [t("doing"), step ? h("span", {}, raw(`${step.pipeline} ${step.stage}`), ` ${clock(step.seconds, 1)}`) : null],
      [t("stages"), worker.stages.includes("all") ? t("allStages") : raw(worker.stages.join(", "))],
      [t("holds"), worker.in_flight ? many("messages", worker.in_flight) : null],
      [t("memory"), size(worker.rss_bytes)], [t("deaths"), known?.deaths ? number(known.deaths) : null],
      ...sensors(gpu.sensors ?? {}),
    ]),
    speeds.length ? h("ul", { class: "plain soft" }, speeds) : null,
    ...Object.entries(worker.declined ?? {}).map(([name, why]) => h("p", { class: "soft" }, t("declined"), " ", raw(name), t("colon"), english(why))),
    orders("workers", worker.worker, worker.order));
}

/** Loads of a worker and of its card, as bars. */
function meters(sensors, busy) {
  const used = sensors.memory_total_bytes ? sensors.memory_used_bytes / sensors.memory_total_bytes : undefined;
  const loads = [[t("busy"), busy], [t("gpuLoad"), sensors.utilization_ratio], [t("gpuMemory"), used], [t("decoder"), sensors.decoder_utilization_ratio], [t("encoder"), sensors.encoder_utilization_ratio]];
  return [h("dl", { class: "loads" }, loads.filter(([, share]) => share !== undefined).map(([title, share]) => h("div", {}, h("dt", {}, title), h("dd", {}, h("meter", { min: 0, max: 1, value: share, "aria-label": title }), percent(share)))))];
}

function sensors(of) {
  const clocks = of.clocks ?? {}, mega = (hertz) => `${number(hertz / 1e6)} MHz`;
  return [
    [t("temperature"), of.temperature_celsius === undefined ? null : `${number(of.temperature_celsius)} °C`],
    [t("power"), of.power_watts === undefined ? null : `${number(of.power_watts)}${of.power_limit_watts ? ` / ${number(of.power_limit_watts)}` : ""} W`],
    [t("gpuMemory"), of.memory_total_bytes ? `${size(of.memory_used_bytes)} / ${size(of.memory_total_bytes)}` : null],
    [t("clocks"), clocks.sm ? mega(clocks.sm) : null], [t("memoryClock"), clocks.memory ? mega(clocks.memory) : null],
    [t("fan"), of.fan_speed_ratio === undefined ? null : percent(of.fan_speed_ratio)],
    [t("throttled"), of.throttled?.length ? of.throttled.map((each) => word("throttle", each)).join(t("comma")) : null],
  ];
}

function orders(kind, name, order) {
  const made = (act) => button(act, t(act), { values: { kind, name }, label: `${t(act)}: ${name}` });
  return h("div", { class: "row" }, order === "work" ? [made("cordon"), made("drain")] : made("resume"));
}

function queues(busy) {
  return table(t("queues"), [
    [t("pipeline"), (each) => raw(each.pipeline), "name"], [t("stage"), (each) => raw(each.stage)],
    [t("waiting"), (each) => number(each.interactive + each.bulk), "number"], [t("inFlight"), (each) => number(each.in_flight), "number"],
    [t("bytes"), (each) => `${size(each.bytes)} / ${size(each.limit_bytes)}`, "number"], [t("oldest"), (each) => (each.messages ? clock(each.oldest_s) : "–"), "number"],
  ], busy, (each) => `${each.pipeline}.${each.stage}`);
}
