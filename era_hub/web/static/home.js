// @ts-check
/** The user's page: shows what the API says, extends reservations and gives them back. */

import { priceChart } from "./chart.js";
import { listen } from "./events.js";
import { extend } from "./extend.js";
import { formatCredits, formatTime } from "./market.js";
import { byId, call, element, meta, ms, Refusal, showProblem, span, table } from "./page.js";

const HOURS = 24;
// With a stream of events only what nobody tells of: the time that passes, jobs' progress.
const REFRESH = 30_000;
const REFRESH_WITHOUT_EVENTS = 10_000;

const OPEN = ["accepted", "active"];
const ENTRIES = 50;
const MOST_ENTRIES = 1000;

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

/**
 * @param {any} each a reservation
 * @param {string} name of its job
 */
function extendButton(each, name = "") {
  if (!OPEN.includes(each.state) || ms(each.end) <= Date.now()) return "";
  const button = /** @type {HTMLButtonElement} */ (element("button", "Extend"));
  button.type = "button";
  button.addEventListener("click", async () => {
    const done = await extend({ ...each, name });
    byId("done").textContent = done;
    byId("done").hidden = !done;
    if (done) await refresh();
  });
  return button;
}

/** @param {(string | Node)[]} buttons */
function together(...buttons) {
  if (!buttons.some(Boolean)) return "";
  const host = element("span", "", "buttons");
  host.append(...buttons);
  return host;
}

/** @param {any} each */
function price(each) {
  const group = each.account === "own" ? "" : ` (${each.account.replace("group:", "")})`;
  return formatCredits(each.price) + group;
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
        price(each),
        each.refunded ? formatCredits(each.refunded) : "",
        startLink(each) || each.message,
        together(extendButton(each), endButton(each)),
      ],
    }));
  const titles = ["State", "What", "When", "#Price", "#Refunded", "Note", "Actions"];
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
        price(each.reservation),
        each.state === "running" ? bar : each.message,
        together(extendButton(each.reservation, each.name), endButton(each.reservation)),
      ],
    };
  });
  const titles = ["State", "Name", "What", "When", "#Price", "Note", "Actions"];
  table(byId("jobs"), titles, rows, "None yet. Send one from a notebook with %%era_job.");
}

/** @param {any} account one that may pay */
const owner = ({ account }) => (account === "own" ? "you" : `the group ${account.replace("group:", "")}`);

/** @param {any[]} accounts those that may pay; with one there is nothing to choose */
function showAccounts(accounts) {
  const own = accounts.find(({ account }) => account === "own") ?? accounts[0];
  byId("balance").textContent = formatCredits(own.balance);
  byId("held").textContent = formatCredits(own.held);
  const several = accounts.length > 1;
  byId("figures").hidden = several;
  byId("accounts").hidden = byId("ledger-choice").hidden = !several;
  if (!several) return;
  const rows = accounts.map((each) => ({
    cells: [
      owner(each),
      formatCredits(each.balance),
      formatCredits(each.held),
      each.default ? "pays if you don't choose" : "",
    ],
  }));
  table(byId("accounts"), ["Who may pay", "#Free to spend", "#Set aside", "Note"], rows, "");
  const select = /** @type {HTMLSelectElement} */ (byId("ledger-account"));
  const names = accounts.map(({ account }) => account);
  // An open list is left alone.
  if ([...select.options].map(({ value }) => value).join("\n") === names.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...accounts.map((each) => new Option(owner(each), each.account)));
  if (names.includes(chosen)) select.value = chosen;
}

let shown = ENTRIES;

/** @param {any} account */
function showLedger(account) {
  const rows = account.entries.map((/** @type {any} */ each) => ({
    cells: [
      formatTime(ms(each.at)),
      meaning(each),
      (each.amount < 0 ? "−" : "+") + formatCredits(Math.abs(each.amount)),
      formatCredits(each.balance),
    ],
  }));
  table(byId("ledger"), ["When", "What", "#Credits", "#Balance"], rows, "Nothing yet.");
  byId("ledger-more").hidden = account.entries.length < shown || shown >= MOST_ENTRIES;
}

/** @param {any} each an entry of the ledger */
function meaning(each) {
  // The list of reservations shows the newest only.
  const known = each.reservation && document.getElementById(`reservation-${each.reservation}`);
  const words = element("span", known ? linkTo(each.reservation, each.text) : each.text);
  const more = [];
  if (each.start && each.kind === "hold") more.push(span(each));
  if (each.expires && ["grant", "refund"].includes(each.kind)) {
    const past = ms(each.expires) <= Date.now();
    const when = formatTime(ms(each.expires));
    more.push(past ? `what was not used lapsed ${when}` : `lapses ${when} if not used`);
  }
  if (each.expires && each.kind === "hold") {
    more.push(`from credits that lapse ${formatTime(ms(each.expires))}`);
  }
  if (more.length) words.append(element("span", more.join("; "), "quiet detail"));
  return words;
}

/**
 * @param {string} reservation
 * @param {string} words
 */
function linkTo(reservation, words) {
  const link = /** @type {HTMLAnchorElement} */ (element("a", words));
  link.href = `#reservation-${reservation}`;
  return link;
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
    const paying = /** @type {HTMLSelectElement} */ (byId("ledger-account")).value || "own";
    const ledger = `account?limit=${shown}&account=${encodeURIComponent(paying)}`;
    const [prices, reservations, jobs, accounts, account] = await Promise.all([
      call(`market?hours=${HOURS}`),
      call("reservations?limit=50"),
      call("jobs?limit=50"),
      call("accounts"),
      call(ledger).catch(ownLedger),
    ]);
    market = prices;
    showPrices();
    showReservations(reservations);
    showJobs(jobs);
    showAccounts(accounts);
    showLedger(account);
    byId("problem").hidden = true;
  } catch (problem) {
    showProblem(/** @type {Error} */ (problem));
  }
}

/** @param {Error} problem */
function ownLedger(problem) {
  // Who has left a group sees its account no more.
  if (!(problem instanceof Refusal) || problem.status !== 403) throw problem;
  return call(`account?limit=${shown}`);
}

let listening = false;
let due = 0;

/** Refresh, but leave the page alone while nobody looks or somebody is about to act. */
async function tick() {
  const acting = document.activeElement?.tagName === "BUTTON" || document.querySelector("dialog[open]");
  const busy = acting || document.hidden;
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
byId("ledger-account").addEventListener("change", () => {
  shown = ENTRIES;
  refresh();
});
byId("ledger-more").addEventListener("click", () => {
  shown = Math.min(MOST_ENTRIES, shown * 4);
  refresh();
});
window.addEventListener("hashchange", refresh);
document.addEventListener("visibilitychange", soon);
tick();
listen(`${meta("era-prefix")}api/v1/events`, { "X-XSRFToken": meta("era-xsrf") }, soon, (open) => {
  listening = open;
});
