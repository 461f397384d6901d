// @ts-check
/** What the admins' page only shows: who holds what, demand, entries, and the audit log. */

import { durationText } from "./forms.js";
import { formatCredits, formatTime } from "./market.js";
import { byId, call, element, ms, showProblem, span, table } from "./page.js";

export const when = (/** @type {string | null} */ time) => (time ? formatTime(ms(time)) : "");
export const money = (/** @type {number | null} */ amount) => (amount === null ? "" : formatCredits(amount));
export const hours = (/** @type {number} */ seconds) => String(Math.round(seconds / 36) / 100);

/** @param {{kind: string, name: string}} each */
export const owner = ({ kind, name }) =>
  kind === "everyone" ? "every user" : kind === "member" ? `each member of ${name}` : `${kind} ${name}`;

/**
 * Who pays, as `own` or `group:NAME`, in words.
 *
 * @param {string} account
 */
export const payer = (account) => (account === "own" ? "their own account" : account.replace(":", " "));

/**
 * A list that comes in parts: a button asks for the next one.
 *
 * @param {string} id of the list; its button's ends in -more
 * @param {() => string} path
 * @param {string} cursor what the next part is asked for with
 * @param {(items: any[]) => void} show
 */
export function partly(id, path, cursor, show) {
  /** @type {any[]} */
  let items = [];
  let next = "";
  const load = async (more = false) => {
    const from = more ? `&${cursor}=${encodeURIComponent(next)}` : "";
    const part = await call(path() + from);
    items = more ? items.concat(part.items) : part.items;
    next = String(part.next ?? "");
    byId(`${id}-more`).hidden = part.next === null;
    show(items);
  };
  byId(`${id}-more`).addEventListener("click", () => load(true).catch(showProblem));
  return load;
}

/** @param {any[]} holders */
export function showHolders(holders) {
  const rows = holders.map((each) => {
    const lines = each.reservations.map((/** @type {any} */ one) => {
      const state = one.waiting ? `waiting${one.message && `: ${one.message}`}` : one.state;
      const paid = one.payer === "own" ? "" : `, paid by ${payer(one.payer)}`;
      return element("li", `${one.configuration}, ${span(one)}, ${state}${paid}`);
    });
    const list = element("ul");
    list.append(...lines);
    const count = each.reservations.length;
    const details = element("details", element("summary", count === 1 ? "1 reservation" : `${count} reservations`));
    details.append(list);
    const numbers = [each.gpus_now, each.gpus_waiting, each.gpus_later].map(String);
    return { cells: [each.user, ...numbers, money(each.held), details] };
  });
  const titles = ["User", "#GPUs now", "#Waiting", "#Later", "#Set aside", "What"];
  table(byId("holders"), titles, rows, "Nobody has a reservation.");
}

/** @param {{days: any[]}} demand */
export function showDemand({ days }) {
  const rows = days.filter((each) => each.bids).reverse().map((each) => ({
    cells: [
      new Date(ms(each.day)).toLocaleDateString("en-GB", { timeZone: "UTC", weekday: "short", day: "numeric", month: "short" }),
      String(each.bids),
      String(each.declined),
      String(each.gpu_hours_asked),
      String(each.gpu_hours_accepted),
      money(each.turned_away),
    ],
  }));
  const titles = ["Day (UTC)", "#Bids", "#Declined", "#Hours asked", "#Hours accepted", "#Turned away"];
  table(byId("demand"), titles, rows, "Nobody has asked for anything in the last two weeks.");
}

// -- the entries of one account --------------------------------------------------------

/** @type {{kind: string, name: string}} */
let account = { kind: "", name: "" };
const entries = () => `admin/account?limit=30&kind=${account.kind}&name=${encodeURIComponent(account.name)}`;
const loadEntries = partly("entries", entries, "before", (lines) => {
  const rows = lines.map((each) => ({
    cells: [when(each.at), each.text, money(each.amount), money(each.balance)],
  }));
  table(byId("entries"), ["When", "What", "#Credits", "#Balance"], rows, "No entries.");
});

/**
 * Show the entries of an account below the list of all.
 *
 * @param {{kind: string, name: string}} wanted
 */
export async function showEntries(wanted) {
  account = wanted;
  try {
    await loadEntries();
  } catch (problem) {
    return showProblem(/** @type {Error} */ (problem));
  }
  byId("entries-title").textContent = `Entries of ${owner(wanted)}`;
  byId("statement").hidden = false;
  byId("entries-title").focus();
}

// -- the audit log ---------------------------------------------------------------------

/** @param {any[]} lines */
export function showAudit(lines) {
  const rows = lines.map((each) => ({
    cells: [when(each.at), each.actor, each.action, each.subject, difference(each.before, each.after)],
  }));
  table(byId("audit"), ["When", "Who", "What", "Whose", "Before and after"], rows, "Nothing yet.");
}

/** How the fields of what was changed are written; others stand for themselves.
 * @type {[(value: any) => string, string[]][]} */
const WORDS = [
  [formatCredits, ["amount", "balance", "cap", "overdraft", "price_floor", "price_ceiling", "floor_now", "ceiling_now"]],
  [durationText, ["period", "expires_after", "longest", "horizon"]],
  [hours, ["gpu_seconds"]],
  [when, ["start", "end", "anchor", "next_at", "ended"]],
];
const NAMES = /** @type {Record<string, string>} */ ({ gpu_seconds: "GPU-hours", gpus: "GPUs" });

/**
 * What is not the same before and after, in words.
 *
 * @param {Record<string, any> | null} before
 * @param {Record<string, any> | null} after
 */
function difference(before, after) {
  const word = (/** @type {string} */ name, /** @type {any} */ value) => {
    if (value === null || value === undefined || value === "") return "–";
    const known = WORDS.find(([, names]) => names.includes(name));
    if (known) return known[0](value);
    return Array.isArray(value) ? value.join(", ") : String(value);
  };
  return [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])]
    .map((name) => ({ name, was: word(name, before?.[name]), is: word(name, after?.[name]) }))
    .filter(({ name, was, is }) => was !== is && name !== "version")
    .map(({ name, was, is }) => `${NAMES[name] ?? name.replaceAll("_", " ")}: ${before ? `${was} → ` : ""}${is}`)
    .join("; ");
}
