// @ts-check
/** More time for a reservation: the price is shown before it is asked for. */

import { formatCredits, formatTime } from "./market.js";
import { byId, call, ms, Refusal } from "./page.js";

const PAUSE = 300;

/** @typedef {{duration: string, price: number}} Offer */

/**
 * Ask how long, show the price and the new end, and extend when it is confirmed.
 *
 * @param {any} reservation
 * @returns {Promise<string>} what was done, or nothing
 */
export function extend(reservation) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("extend"));
  const form = /** @type {HTMLFormElement} */ (byId("extend-form"));
  const length = /** @type {HTMLInputElement} */ (byId("extend-duration"));
  const yes = /** @type {HTMLButtonElement} */ (byId("extend-yes"));
  const path = `reservations/${reservation.id}/extend`;
  /** @type {Offer | null} */
  let offer = null;
  let asked = 0;
  let sending = false;
  let key = "";
  let done = "";

  /** @param {Offer | null} found @param {string} words */
  const show = (found, words) => {
    offer = found;
    // A new offer is a new bid; all tries of one bid have one key.
    key = crypto.randomUUID();
    yes.disabled = !found;
    yes.textContent = found ? `Extend for ${formatCredits(found.price)} credits` : "Extend";
    byId("extend-price").textContent = words;
  };

  const ask = async () => {
    const mine = ++asked;
    const duration = length.value.trim();
    if (!duration) return show(null, "");
    show(null, "Asking for the price …");
    try {
      const quote = await call(`${path}/quote`, "POST", { duration });
      if (mine !== asked) return;
      problem("");
      const until = `until ${formatTime(ms(quote.end))} instead of ${formatTime(ms(reservation.end))}`;
      if (!quote.feasible) return show(null, `Not possible: ${quote.reason}.`);
      const more = formatCredits(quote.price);
      show({ duration, price: quote.price }, `It goes on ${until}, for ${more} credits more${payer(reservation)}.`);
    } catch (error) {
      if (mine !== asked) return;
      show(null, "");
      problem(inWords(error));
    }
  };

  const send = async () => {
    if (!offer || sending) return;
    sending = true;
    yes.disabled = length.disabled = true;
    problem("");
    try {
      const headers = { "Idempotency-Key": key, "If-Match": `"${reservation.version}"` };
      // The most to be paid is what was shown.
      const body = { duration: offer.duration, value: offer.price };
      const outcome = await call(path, "POST", body, headers);
      if (outcome.accepted) {
        const end = formatTime(ms(outcome.reservation.end));
        done = `Extended until ${end} for ${formatCredits(outcome.price)} credits.`;
        return dialog.close();
      }
      await ask();
      problem(`Not extended: ${outcome.reason}.`);
    } catch (error) {
      problem(inWords(error));
      yes.disabled = false;
    } finally {
      sending = length.disabled = false;
    }
  };

  let due = 0;
  length.oninput = () => {
    clearTimeout(due);
    // What is shown is of another duration.
    asked += 1;
    show(null, "Asking for the price …");
    due = setTimeout(ask, PAUSE);
  };
  form.onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  byId("extend-no").onclick = () => {
    if (!sending) dialog.close();
  };
  // What is on its way can't be called back: its answer is waited for.
  dialog.oncancel = (event) => {
    if (sending) event.preventDefault();
  };
  const what = reservation.name ? `The job ${reservation.name}` : `Your ${reservation.configuration}`;
  byId("extend-what").textContent = `${what} ends ${formatTime(ms(reservation.end))} now.`;
  length.value = "1h";
  problem("");
  dialog.showModal();
  length.select();
  ask();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      clearTimeout(due);
      asked += 1;
      resolve(done);
    };
  });
}

/** @param {any} reservation */
function payer({ account }) {
  return account === "own" ? "" : `, paid by ${account.replace("group:", "")}`;
}

/** @param {string} words */
function problem(words) {
  byId("extend-problem").textContent = words;
  byId("extend-problem").hidden = !words;
}

/** @param {unknown} error */
function inWords(error) {
  const text = /** @type {Error} */ (error).message.replace(/\.$/, "");
  if (!(error instanceof Refusal)) return "The market can't be reached. Try again in a moment.";
  if (error.status === 412) return "It has changed meanwhile. Close this, and look again.";
  const later = error.status === 429 || error.status >= 500;
  return later ? `The market is busy: ${text}. Try again in a moment.` : `${text}.`;
}
