// @ts-check
/** What admins type, and how a change is shown before it is made. */

import { formatForInput, two } from "./market.js";
import { byId, call, element, Refusal } from "./page.js";

const MICRO = 1_000_000;
const UNITS = /** @type {[string, number][]} */ ([["d", 86_400], ["h", 3_600], ["m", 60], ["s", 1]]);

/**
 * Micro-credits from credits as they are typed, digit by digit: 2.50 is 2500000.
 *
 * @param {string} text
 * @param {string} name of the field, for the problem
 * @returns {number | null} null for an empty field
 */
export function micro(text, name) {
  if (!text.trim()) return null;
  const match = /^(\d{1,9})(?:\.(\d{0,6}))?$/.exec(text.trim());
  if (!match) throw new Error(`${name}: write credits as 2.50, with six decimals at most`);
  return Number(match[1]) * MICRO + Number((match[2] ?? "").padEnd(6, "0"));
}

/**
 * An amount as `micro` reads it.
 *
 * @param {number | null} amount micro-credits
 */
export function typed(amount) {
  if (amount === null) return "";
  const rest = String(amount % MICRO).padStart(6, "0").replace(/0{1,4}$/, "");
  return `${Math.floor(amount / MICRO)}.${rest}`;
}

/**
 * A whole number, or null for an empty field.
 *
 * @param {string} text
 * @param {string} name of the field, for the problem
 */
export function whole(text, name) {
  if (!text.trim()) return null;
  if (!/^\d{1,9}$/.test(text.trim())) throw new Error(`${name}: write a whole number`);
  return Number(text);
}

/**
 * A duration as it is typed, or seconds as such a text: 5400 is 1h30m.
 *
 * @param {number | null} seconds
 */
export function durationText(seconds) {
  let rest = seconds ?? 0;
  let text = "";
  for (const [unit, size] of UNITS) {
    if (rest >= size) text += `${Math.floor(rest / size)}${unit}`;
    rest %= size;
  }
  return text;
}

/**
 * The time of an input of type datetime-local, with the offset of the browser's zone.
 *
 * @param {string} text
 * @returns {string | null} null for an empty field
 */
export function zoned(text) {
  if (!text) return null;
  const date = new Date(text);
  const offset = -date.getTimezoneOffset();
  const [hours, minutes] = [Math.floor(Math.abs(offset) / 60), Math.abs(offset) % 60];
  const sign = offset < 0 ? "-" : "+";
  return `${formatForInput(date.getTime())}:00${sign}${two(hours)}:${two(minutes)}`;
}

/** @typedef {{path: string, method?: string, body?: object}} Change */

/**
 * Ask the service what a change does, show it, and make it once it is confirmed.
 *
 * @param {Change} change
 * @returns {Promise<any>} what was done, or null if it was not confirmed
 */
export async function confirmed({ path, method = "POST", body }) {
  const joined = path + (path.includes("?") ? "&" : "?");
  const preview = await call(`${joined}preview=true`, method, body);
  // One key for all tries: if an answer was lost, the next try gets it.
  const headers = { "Idempotency-Key": crypto.randomUUID() };
  return ask(preview.effects, () => call(path, method, body, headers));
}

/**
 * @param {any[]} effects
 * @param {() => Promise<any>} act
 * @returns {Promise<any>}
 */
function ask(effects, act) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("confirm"));
  const yes = /** @type {HTMLButtonElement} */ (byId("confirm-yes"));
  const problem = byId("confirm-problem");
  byId("confirm-effects").replaceChildren(...effectLines(effects));
  problem.hidden = true;
  yes.disabled = false;
  return new Promise((resolve, reject) => {
    let sending = false;
    yes.onclick = async () => {
      yes.disabled = sending = true;
      try {
        resolve(await act());
      } catch (error) {
        if (mayWorkLater(error)) {
          problem.textContent = `${/** @type {Error} */ (error).message}. Confirm to try again.`;
          problem.hidden = false;
          yes.disabled = sending = false;
          return;
        }
        reject(error);
      }
      sending = false;
      dialog.close();
    };
    byId("confirm-no").onclick = () => {
      if (!sending) dialog.close();
    };
    // What is on its way can't be called back: its answer is waited for.
    dialog.oncancel = (event) => {
      if (sending) event.preventDefault();
    };
    dialog.onclose = () => {
      if (!sending) resolve(null);
    };
    dialog.showModal();
  });
}

/** @param {unknown} error */
function mayWorkLater(error) {
  return !(error instanceof Refusal) || error.status === 429 || error.status >= 500;
}

/** @param {any[]} effects */
function effectLines(effects) {
  return effects.map(({ level, text }) => {
    const line = element("li", text);
    if (level === "warning") line.prepend(element("strong", "Warning: ", "bad"));
    return line;
  });
}
