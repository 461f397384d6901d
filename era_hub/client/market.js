// @ts-check
/**
 * Prices for people: the engine's choice of start, amounts and times as texts.
 *
 * Shared by the spawn form, the notebook widget and the service's pages; asks the
 * network nothing.
 */

/**
 * @typedef {object} SearchOptions
 * @property {number} firstSlot start of the first slot, ms since 1970
 * @property {number} slot length of a slot in seconds
 * @property {(number|null)[]} prices micro-credits for each slot; null where sold out
 * @property {number} now ms since 1970
 * @property {number} duration seconds; rounded up to whole slots
 * @property {number} arrival earliest start, ms
 * @property {number} deadline latest end, ms
 */

/** @typedef {{start: number, end: number, price: number}} Start */

const MICRO = 1e6;
const HOUR = 3600e3;

/**
 * The cheapest start in a window, as the engine chooses it.
 *
 * Candidates are the arrival itself, which may lie inside a slot, and the slot
 * boundaries after it. Of equal prices the earliest wins.
 *
 * @param {SearchOptions} options
 * @returns {Start|null} null if nothing fits
 */
export function cheapestStart(options) {
  const { firstSlot, slot, prices, now, duration, deadline } = options;
  const step = slot * 1000;
  const count = Math.max(1, Math.ceil(duration / slot));
  const arrival = Math.max(options.arrival, now);
  // Running totals of prices and of sold-out slots make each candidate O(1).
  const total = [0];
  const gaps = [0];
  prices.forEach((price, i) => {
    total.push(total[i] + (price ?? 0));
    gaps.push(gaps[i] + (price === null ? 1 : 0));
  });
  /** @type {Start|null} */
  let best = null;
  let start = arrival;
  while (start + count * step <= deadline) {
    const first = Math.floor((start - firstSlot) / step);
    const inside = (start - firstSlot) / step - first;
    const stop = first + count + (inside > 0 ? 1 : 0);
    if (stop > prices.length) break;
    if (first >= 0 && gaps[stop] === gaps[first]) {
      const unused = inside * (prices[first] ?? 0) + (inside ? 1 - inside : 0) * (prices[stop - 1] ?? 0);
      const price = Math.ceil(total[stop] - total[first] - unused - 1e-6);
      if (!best || price < best.price) best = { start, end: start + count * step, price };
    }
    start = firstSlot + (first + 1) * step;
  }
  return best;
}

/**
 * An amount for people: two decimals, but never a positive amount as 0.00.
 *
 * @param {number} micro micro-credits
 */
export function formatCredits(micro) {
  const size = Math.abs(micro) / MICRO;
  const small = size > 0 && size < 0.005;
  const digits = small ? Math.min(6, 1 - Math.floor(Math.log10(size))) : 2;
  const text = size.toFixed(digits);
  return (micro < 0 ? "-" : "") + (small ? text.replace(/0+$/, "") : text);
}

/**
 * A time on the reader's clock: 14:40 today, else Tue 14:40, with the date when far away.
 *
 * @param {number} ms
 */
export function formatTime(ms) {
  const date = new Date(ms);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}`;
  const today = new Date();
  if (date.toDateString() === today.toDateString()) return time;
  const day = date.toLocaleDateString("en-GB", { weekday: "short" });
  if (Math.abs(ms - today.getTime()) < 6 * 24 * HOUR) return `${day} ${time}`;
  return `${day} ${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
}

/**
 * A time as inputs of type datetime-local take it: local, to the minute.
 *
 * @param {number} ms since 1970
 * @returns {string}
 */
export function formatForInput(ms) {
  const date = new Date(ms);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}`;
}

/**
 * A number with two digits.
 *
 * @param {number} n
 */
export function two(n) {
  return String(n).padStart(2, "0");
}
