// @ts-check
/** The spawn form at work: total, start and chart follow as the user types. */

import { priceChart } from "../../../era_hub/client/chart.js";
import {
  cheapestStart, formatCredits, formatForInput, formatTime,
} from "../../../era_hub/client/market.js";

/** @typedef {import("../../../era_hub/client/chart.js").Forecast} Forecast */
/** @typedef {import("../../../era_hub/client/market.js").Start} Start */
/** @typedef {{title: string, prices: (number|null)[], forecast: Forecast|null}} Priced */

/**
 * @typedef {object} FormData_
 * @property {number} now the service's clock when the page was made, ms
 * @property {number} firstSlot ms
 * @property {number} slot seconds
 * @property {number} horizon ms
 * @property {string} usual who pays where nobody chooses
 * @property {Record<string, number>} balances micro-credits of the accounts that may pay
 * @property {number} margin the suggested limit over the price
 * @property {number|null} latest latest start to begin with, ms
 * @property {Record<string, Priced>} configurations
 */

/** @typedef {{text: string, run: () => void}} Action */
/** @typedef {{tone: ""|"good"|"later"|"bad", headline: string, detail: string, actions: Action[]}} Verdict */

const MICRO = 1e6;
const MINUTE = 60e3;
const HOUR = 60 * MINUTE;

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function find(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`#${id} is missing`);
  return element;
}

/** @type {FormData_} */
const data = JSON.parse(find("era-data", HTMLScriptElement).textContent ?? "");
const opened = performance.now();
const form = find("era", HTMLElement);
const fresh = find("era-new", HTMLFieldSetElement);
const hoursInput = find("era-hours", HTMLInputElement);
const withinInput = find("era-within", HTMLSelectElement);
const latestInput = find("era-latest", HTMLInputElement);
const limitInput = find("era-limit", HTMLInputElement);
// There is one only where several accounts may pay.
const payerInput = document.getElementById("era-account");
const submit = form.closest("form")?.querySelector("button[type=submit]");
let limitEdited = false;

/** The service's clock: the browser's own may be wrong. */
function clock() {
  return data.now + performance.now() - opened;
}

/**
 * @param {string} name
 * @returns {string|undefined}
 */
function checked(name) {
  const input = form.querySelector(`input[name="${name}"]:checked`);
  return input instanceof HTMLInputElement ? input.value : undefined;
}

/** Latest start in ms; null stands for "now, or not at all", NaN for no date. */
function latestStart() {
  if (withinInput.value === "0") return null;
  if (withinInput.value === "at") return new Date(latestInput.value).getTime();
  return clock() + Number(withinInput.value) * HOUR;
}

/** @param {number} ms */
function setLatest(ms) {
  // The field counts whole minutes: round up, so that this start stays allowed.
  latestInput.value = formatForInput(Math.ceil(ms / MINUTE) * MINUTE);
}

/** The choices as they stand, with the market's likely answers; null if hours are no number. */
function consider() {
  const shown = data.configurations[checked("configuration") ?? ""];
  const prices = shown?.prices ?? [];
  const duration = Number(hoursInput.value) * 3600;
  if (!(duration > 0)) return null;
  const now = clock();
  const length = Math.max(1, Math.ceil(duration / data.slot)) * data.slot * 1000;
  const reach = data.firstSlot + prices.length * data.slot * 1000;
  const latest = latestStart();
  /** @param {number} deadline */
  const search = (deadline) =>
    cheapestStart({ ...data, prices, now, duration, arrival: now, deadline });
  return {
    now, prices, forecast: shown?.forecast ?? null, latest,
    best: search(Math.max(latest ?? now, now) + length),
    atOnce: search(now + length),
    anytime: search(reach),
    soonest: soonest(search, now + length, reach),
    beyond: Math.max(latest ?? now, now) + length > reach,
    limit: Number(limitInput.value) * MICRO,
  };
}

/**
 * The first feasible start: with later deadlines feasible starts only come to it.
 *
 * @param {(deadline: number) => Start|null} search
 * @param {number} low
 * @param {number} high
 */
function soonest(search, low, high) {
  let found = search(high);
  while (found && high - low > 1000) {
    const middle = (low + high) / 2;
    const earlier = search(middle);
    if (earlier) [found, high] = [earlier, middle];
    else low = middle;
  }
  return found;
}

/** @param {number} price micro-credits */
function suggestedLimit(price) {
  return Math.max(0.1, Math.ceil((price * data.margin) / MICRO / 0.05) * 0.05).toFixed(2);
}

/** @param {Start} start */
function startAction(start) {
  return {
    text: `Start ${formatTime(start.start)} for ${formatCredits(start.price)} credits`,
    run: () => {
      withinInput.value = "at";
      setLatest(start.start);
    },
  };
}

/**
 * @param {NonNullable<ReturnType<typeof consider>>} choice
 * @returns {Verdict}
 */
function judge(choice) {
  const { best, atOnce, anytime, now, latest, limit } = choice;
  /** @type {Action[]} */
  const actions = [];
  if (Number.isNaN(latest)) {
    return { tone: "", headline: "Say at what time it must start at the latest", detail: "", actions };
  }
  if (!best) return without(choice);
  const others = anytime && anytime.price < best.price * 0.95 ? [startAction(anytime)] : [];
  if (!(best.price <= limit)) {
    const limitText = suggestedLimit(best.price);
    actions.push({ text: `Raise the limit to ${limitText}`, run: () => { limitInput.value = limitText; } });
    const when = best.start <= now ? "Starting now" : `The cheapest start in your window, ${formatTime(best.start)},`;
    return {
      tone: "bad",
      headline: "Above your limit: would be declined",
      detail: `${when} costs ${formatCredits(best.price)} credits; your limit is ${formatCredits(limit || 0)}.`,
      actions: [...actions, ...others],
    };
  }
  const cost = `costs ${formatCredits(best.price)} credits`;
  if (best.start <= now) {
    return {
      tone: "good",
      headline: `Starts now, ends ${formatTime(best.end)}, ${cost}`,
      detail: "The reservation fixes the price. You never pay more than your limit.",
      actions: others,
    };
  }
  const saving = atOnce ? ` Starting now would cost ${formatCredits(atOnce.price)}.` : " Nothing is free now.";
  return {
    tone: "later",
    headline: `Starts ${formatTime(best.start)}, ends ${formatTime(best.end)}, ${cost}`,
    detail: `The cheapest start in your window.${saving} Your server starts by itself then.`,
    actions: others,
  };
}

/**
 * @param {NonNullable<ReturnType<typeof consider>>} choice
 * @returns {Verdict}
 */
function without({ anytime, soonest, latest, beyond }) {
  if (beyond) {
    const detail = "The prices here don't reach that far. The market answers when you send the form.";
    return { tone: "", headline: "Price known once you ask", detail, actions: [] };
  }
  return {
    tone: "bad",
    headline: latest === null ? "Sold out now" : "Sold out until your latest start",
    detail: anytime ? "It would be declined. Instead:" : "Nothing is free for that long in the coming two days.",
    actions: [soonest, anytime].flatMap((start, i, all) =>
      start && (i === 0 || start.start !== all[0]?.start) ? [startAction(start)] : []),
  };
}

/** @param {Verdict} verdict */
function show({ tone, headline, detail, actions }) {
  find("era-total", HTMLElement).className = `era-total ${tone}`;
  // Only changed texts are set, so that screen readers repeat nothing.
  setText("era-headline", headline);
  setText("era-detail", detail);
  const buttons = actions.map(({ text, run }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-sm btn-outline-secondary";
    button.textContent = text;
    button.addEventListener("click", () => {
      run();
      update();
    });
    return button;
  });
  const row = find("era-actions", HTMLElement);
  const same = row.textContent === buttons.map((button) => button.textContent).join("");
  if (!same) row.replaceChildren(...buttons);
}

/**
 * @param {string} id
 * @param {string} text
 */
function setText(id, text) {
  const element = find(id, HTMLElement);
  if (element.textContent !== text) element.textContent = text;
}

function update() {
  const reservation = checked("reservation");
  fresh.disabled = Boolean(reservation);
  if (withinInput.value === "at" && !latestInput.value) setLatest(clock() + 4 * HOUR);
  const choice = consider();
  const best = choice?.best;
  const price = (best ?? choice?.anytime)?.price;
  if (choice && !limitEdited && price !== undefined) {
    limitInput.value = suggestedLimit(price);
    choice.limit = Number(limitInput.value) * MICRO;
  }
  show(choice ? judge(choice) : { tone: "", headline: "Say for how many hours, such as 1.5", detail: "", actions: [] });
  const affordable = choice && best && best.price <= choice.limit ? best : null;
  setText("era-poor", best ? poorness(best.price) : "");
  if (submit) submit.textContent = buttonText(reservation, affordable?.start, choice?.now);
  if (choice) drawChart(choice.prices, choice.forecast, best);
}

/** @param {number} price micro-credits */
function poorness(price) {
  const account = payerInput instanceof HTMLSelectElement ? payerInput.value : data.usual;
  const balance = data.balances[account];
  if (price <= balance) return "";
  const owner = account === "own" ? "You have" : `Group ${account.replace("group:", "")} has`;
  return `${owner} only ${formatCredits(balance)} credits.`;
}

/**
 * @param {string|undefined} reservation
 * @param {number|undefined} start
 * @param {number|undefined} now
 */
function buttonText(reservation, start, now) {
  if (reservation) return "Start on your reservation";
  if (start === undefined || now === undefined) return "Start";
  return start <= now ? "Start now" : `Reserve for ${formatTime(start)}`;
}

/**
 * @param {(number|null)[]} prices
 * @param {Forecast|null} forecast
 * @param {Start|null|undefined} chosen
 */
function drawChart(prices, forecast, chosen) {
  if (fresh.disabled) return;
  const { firstSlot, slot } = data;
  const host = find("era-chart", HTMLElement);
  const options = { firstSlot, slot, prices, forecast, now: clock(), hours: 24 };
  priceChart(host, { ...options, chosen: chosen ?? null });
}

function send() {
  const latest = withinInput.value === "at" ? latestStart() : null;
  const known = latest !== null && !Number.isNaN(latest);
  // With its offset: the field's own value is a time of the browser's zone.
  find("era-latest-start", HTMLInputElement).value = known ? new Date(latest).toISOString() : "";
}

for (const time of document.querySelectorAll("#era time")) {
  if (time instanceof HTMLTimeElement) time.textContent = formatTime(new Date(time.dateTime).getTime());
}
for (const button of form.querySelectorAll("[data-hours]")) {
  button.addEventListener("click", () => {
    hoursInput.value = button.getAttribute("data-hours") ?? "1";
    update();
  });
}
for (const id of ["era-total", "era-figure"]) find(id, HTMLElement).hidden = false;
for (const row of form.querySelectorAll(".era-quick")) row.removeAttribute("hidden");
setText("era-asof", `as of ${formatTime(data.now)}`);
if (data.latest) setLatest(data.latest);
limitInput.addEventListener("input", () => {
  limitEdited = limitInput.value !== "";
});
form.addEventListener("input", update);
form.closest("form")?.addEventListener("submit", send);
setInterval(update, 30e3);
update();
