// @ts-check
/** The user's page: shows what the API says, and gives reservations back. */

import { priceChart } from "./chart.js";
import { listen } from "./events.js";
import { formatCredits, formatTime } from "./market.js";
import { byId, call, element, meta, ms, showProblem, span, table } from "./page.js";

const HOURS = 24;
// With a stream of events only what nobody tells of: the time that passes, jobs' progress.
const REFRESH = 30_000;
const REFRESH_WITHOUT_EVENTS = 10_000;

const OPEN = ["accepted", "active"];

/**
 * A button that asks once more before it acts.
 * @param {string} label
 * @param {string} question
 * @param {() => Promise<any>} act
 */
function carefulButton(label, question, act) {
  const button = /** @type {HTMLButtonElement} */ (element("button", label));
  button.type = "button";
  button.addEventListener("click", async () => {
    if (!confirm(question)) return;
    button.disabled = true;
    await act().catch(showProblem);
    await refresh();
  });
  return button;
}

/** @param {any} each */
function endButton(each) {
  if (!OPEN.includes(each.state)) return "";
  const job = each.kind === "job";
  const [label, question] =
    each.state === "accepted"
      ? ["Cancel", `Cancel it? Its price of ${formatCredits(each.price)} credits is given back.`]
      : [
          job ? "Stop job" : "Release",
          `${job ? "Stop the job" : "Stop the server"} now? The slots not begun are refunded.`,
        ];
  const path = job ? `jobs/${each.id}` : `reservations/${each.id}`;
  return carefulButton(label, question, () => call(path, "DELETE"));
}

/** @param {any} each */
function startLink(each) {
  const now = Date.now();
  if (each.kind !== "notebook" || each.state !== "accepted" || ms(each.start) > now) return "";
  return "starting …";
}

/** @param {any[]} reservations */
function showReservations(reservations) {
  const rows = reservations
    .filter((each) => each.kind === "notebook")
    .map((each) => ({
      id: `reservation-${each.id}`,
      cells: [
        element("span", each.state, `state-${each.state}`),
        each.configuration + (each.gpus?.length ? ` (GPU ${each.gpus.join(", ")})` : ""),
        span(each),
        formatCredits(each.price),
        each.refunded ? formatCredits(each.refunded) : "",
        startLink(each) || each.message,
        endButton(each),
      ],
    }));
  const titles = ["State", "What", "When", "#Price", "#Refunded", "", ""];
  table(byId("reservations"), titles, rows, "None yet.");
}

/** @param {any[]} jobs */
function showJobs(jobs) {
  const rows = jobs.map((each) => {
    const bar = document.createElement("progress");
    bar.value = each.progress ?? 0;
    bar.setAttribute("aria-label", `progress of ${each.name}`);
    return {
      id: `reservation-${each.id}`,
      cells: [
        element("span", each.state, `state-${each.state}`),
        each.name,
        each.reservation.configuration,
        span(each.reservation),
        formatCredits(each.reservation.price),
        each.state === "running" ? bar : each.message,
        endButton(each.reservation),
      ],
    };
  });
  const titles = ["State", "Name", "What", "When", "#Price", "", ""];
  table(byId("jobs"), titles, rows, "None yet. Send one from a notebook with %%era_job.");
}

/** @param {any} account */
function showAccount(account) {
  byId("balance").textContent = formatCredits(account.balance);
  byId("held").textContent = formatCredits(account.held);
  const words = /** @type {Record<string, string>} */ ({
    grant: "received",
    hold: "set aside",
    refund: "refunded",
    withdrawal: "withdrawn",
    expiry: "lapsed",
  });
  const rows = account.entries.map((/** @type {any} */ each) => ({
    cells: [
      formatTime(ms(each.at)),
      words[each.kind] ?? each.kind,
      each.memo,
      (each.amount < 0 ? "−" : "+") + formatCredits(Math.abs(each.amount)),
      formatCredits(each.balance),
    ],
  }));
  table(byId("ledger"), ["When", "", "For", "#Credits", "#Balance"], rows, "Nothing yet.");
}

/** @type {any} */
let market = null;

function showPrices() {
  const select = /** @type {HTMLSelectElement} */ (byId("configuration"));
  const chosen = select.value;
  const priced = market.configurations.filter((/** @type {any} */ each) => each.gpus > 0);
  select.replaceChildren(
    ...priced.map((/** @type {any} */ each) => new Option(each.title, each.name)),
  );
  if (chosen) select.value = chosen;
  const shown = priced.find((/** @type {any} */ each) => each.name === select.value);
  if (!shown) return;
  priceChart(byId("chart"), {
    firstSlot: ms(market.first_slot),
    slot: market.slot,
    prices: shown.prices,
    forecast: shown.forecast,
    now: Date.now(),
    hours: HOURS,
  });
}

async function refresh() {
  try {
    const [prices, reservations, jobs, account] = await Promise.all([
      call(`market?hours=${HOURS}`),
      call("reservations?limit=50"),
      call("jobs?limit=50"),
      call("account?limit=50"),
    ]);
    market = prices;
    showPrices();
    showReservations(reservations);
    showJobs(jobs);
    showAccount(account);
    byId("problem").hidden = true;
  } catch (problem) {
    showProblem(/** @type {Error} */ (problem));
  }
}

let listening = false;
let due = 0;

/** Refresh, but leave the page alone while nobody looks or a button has the focus. */
async function tick() {
  const busy = document.activeElement?.tagName === "BUTTON" || document.hidden;
  if (!busy) await refresh();
  clearTimeout(due);
  due = setTimeout(tick, listening ? REFRESH : REFRESH_WITHOUT_EVENTS);
}

/** Something has changed: many changes at once are one reason to look. */
function soon() {
  clearTimeout(due);
  due = setTimeout(tick, 200);
}

byId("configuration").addEventListener("change", showPrices);
window.addEventListener("hashchange", refresh);
document.addEventListener("visibilitychange", soon);
tick();
listen(`${meta("era-prefix")}api/v1/events`, { "X-XSRFToken": meta("era-xsrf") }, soon, (open) => {
  listening = open;
});
