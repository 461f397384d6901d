// @ts-check
/**
 * The market in a notebook. The kernel talks to the service and sets the model's
 * traits; this code shows them and sends back what the user asks for.
 */

import { priceChart } from "../../../era_hub/client/chart.js";
import { formatCredits, formatTime } from "../../../era_hub/client/market.js";
import { bidForm } from "./bid_form.js";
import { h, say, uniqueId } from "./dom.js";
import { jobList } from "./job_list.js";

/**
 * @typedef {object} Model
 * @property {(name: string) => any} get
 * @property {(event: string, callback: (...args: any[]) => void) => void} on
 * @property {(event: string, callback: (...args: any[]) => void) => void} off
 * @property {(message: object) => void} send
 */

const HOURS = 24;
const MINUTE = 60e3;
const SIGN_OF_LIFE = 20e3;
const PATIENCE = 45e3;

/** @param {{model: Model, el: HTMLElement}} context */
function render({ model, el }) {
  const view = uniqueId() + Math.random().toString(36).slice(2);
  const calls = makeCalls(model);
  const parts = makeParts(calls, model, () => drawChart());
  // JupyterLab's shortcuts would take keys away from the form.
  const root = h("div", { class: "era-market", "data-lm-suppress-shortcuts": "true" },
    parts.top, parts.error, parts.own, parts.notices, parts.chart, parts.form.element,
    parts.jobs.element);
  el.append(root);

  let heard = Date.now();
  // The service's clock, so that a wrong clock here spoils no countdown.
  const time = () => (model.get("now") || Date.now()) + (Date.now() - heard);

  let drawn = "";
  const drawChart = () => {
    const market = model.get("market");
    const shown = market.configurations?.find(
      (/** @type {any} */ one) => one.name === parts.form.configuration());
    if (!shown) return;
    const chosen = parts.form.chosen();
    const minute = Math.floor(time() / MINUTE);
    const key = JSON.stringify([minute, shown.name, shown.prices, shown.forecast, chosen]);
    // Redrawing takes the tooltip away, so only for something new.
    if (key === drawn) return;
    drawn = key;
    priceChart(parts.chart, {
      firstSlot: market.firstSlot, slot: market.slot, prices: shown.prices,
      forecast: shown.forecast, now: time(), hours: HOURS, chosen,
    });
  };

  const update = () => {
    showTop(parts.top, model.get("account"), model.get("market"));
    say(parts.error, model.get("error"));
    parts.error.hidden = !model.get("error");
    showNotices(parts.notices, model.get("notices"));
    showOwn(parts.own, model.get("notebook"), time());
    parts.form.update(model.get("market"), time(), model.get("files"), model.get("accounts"));
    parts.jobs.update(model.get("jobs"), model.get("logs"));
    drawChart();
  };
  const tick = () => {
    heard = Date.now();
  };
  model.on("change:now", tick);
  model.on("change", update);
  model.on("msg:custom", calls.answer);
  update();

  model.send({ do: "hello", view });
  const life = setInterval(() => model.send({ do: "here", view }), SIGN_OF_LIFE);
  const clock = setInterval(() => showOwn(parts.own, model.get("notebook"), time()), 1000);
  return () => {
    clearInterval(life);
    clearInterval(clock);
    model.off("change:now", tick);
    model.off("change", update);
    model.off("msg:custom", calls.answer);
    for (const job of parts.jobs.open()) model.send({ do: "log", job, open: false });
    model.send({ do: "bye", view });
  };
}

/**
 * @param {ReturnType<typeof makeCalls>} calls
 * @param {Model} model
 * @param {() => void} changed
 */
function makeParts(calls, model, changed) {
  return {
    top: h("header", { class: "era-top" }),
    error: h("p", { class: "era-bad", role: "alert", hidden: true }),
    own: h("p", { class: "era-own", hidden: true }),
    notices: h("ul", { class: "era-notices", role: "status" }),
    chart: h("div", { class: "era-chart" }),
    form: bidForm({ submit: (form) => calls.ask({ do: "submit", form }), changed }),
    jobs: jobList({
      cancel: (job) => calls.ask({ do: "cancel", job }),
      log: (job, open) => model.send({ do: "log", job, open }),
    }),
  };
}

/**
 * Questions to the kernel and their answers.
 *
 * @param {Model} model
 */
function makeCalls(model) {
  /** @type {Map<string, (answer: {ok: boolean, text: string}) => void>} */
  const waiting = new Map();
  return {
    /**
     * @param {object} message
     * @returns {Promise<{ok: boolean, text: string}>}
     */
    ask: (message) => new Promise((resolve) => {
      const id = uniqueId() + Math.random().toString(36).slice(2);
      const late = { ok: false, text: "No answer yet; the kernel may be busy. See the list of jobs." };
      const timer = setTimeout(() => {
        waiting.delete(id);
        resolve(late);
      }, PATIENCE);
      waiting.set(id, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      model.send({ ...message, id });
    }),
    /** @param {any} message */
    answer: (message) => {
      const resolve = waiting.get(message?.re);
      waiting.delete(message?.re);
      resolve?.({ ok: Boolean(message.ok), text: String(message.text) });
    },
  };
}

/**
 * @param {HTMLElement} top
 * @param {{balance?: number, held?: number}} account
 * @param {{simulated?: boolean}} market
 */
function showTop(top, account, market) {
  const key = JSON.stringify([account, market.simulated]);
  if (top.dataset.key === key) return;
  top.dataset.key = key;
  const balance = account.balance === undefined ? "…" : formatCredits(account.balance);
  top.replaceChildren(
    h("span", {}, "Balance ", h("strong", {}, `${balance} credits`)),
    account.held ? h("span", {}, `${formatCredits(account.held)} held for reservations`) : "",
    market.simulated ? h("span", { class: "era-simulated" }, "simulated GPUs") : "");
}

/**
 * @param {HTMLElement} list
 * @param {{id: string, level: string, text: string}[]} notices
 */
function showNotices(list, notices) {
  const key = JSON.stringify(notices);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...notices.map(({ level, text }) =>
    h("li", { class: level === "warning" ? "era-warning" : "era-info" }, text)));
}

/**
 * @param {HTMLElement} own
 * @param {{end?: number, configuration?: string}} notebook
 * @param {number} now
 */
function showOwn(own, notebook, now) {
  own.hidden = !notebook.end;
  if (!notebook.end) return;
  const left = Math.max(0, notebook.end - now);
  own.classList.toggle("era-warning", left < 10 * MINUTE);
  const ends = left ? `ends at ${formatTime(notebook.end)}, in ${countdown(left)}.` : "has ended.";
  say(own, `This notebook's time on ${notebook.configuration} ${ends}`);
}

/** @param {number} ms */
function countdown(ms) {
  const seconds = Math.floor(ms / 1000);
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const [hours, rest] = [Math.floor(seconds / 3600), seconds % 3600];
  return `${hours}:${two(Math.floor(rest / 60))}:${two(rest % 60)}`;
}

export default { render };
