// @ts-check
/** The list of jobs. Rows are kept and updated, so that focus and open logs stay. */

import { formatCredits, formatTime } from "../../../era_hub/client/market.js";
import { h, say } from "./dom.js";

/**
 * @typedef {object} Job
 * @property {string} id
 * @property {string} name
 * @property {string} state
 * @property {boolean} final
 * @property {number|null} progress
 * @property {number|null} exitCode
 * @property {string} message
 * @property {string|null} directory
 * @property {number} price
 * @property {string} configuration
 * @property {number} start
 * @property {number} end
 */

/**
 * @typedef {object} Actions
 * @property {(job: string) => Promise<{ok: boolean, text: string}>} cancel
 * @property {(job: string, open: boolean) => void} log
 */

/** @param {Actions} actions */
export function jobList(actions) {
  const rows = h("ul", { class: "era-jobs" });
  const none = h("p", {}, "No jobs yet.");
  const element = h("section", { "aria-label": "Your jobs" }, h("h4", {}, "Your jobs"), none, rows);
  /** @type {Map<string, ReturnType<typeof jobRow>>} */
  const known = new Map();
  return {
    element,
    /**
     * @param {Job[]} jobs
     * @param {Record<string, string>} logs
     */
    update(jobs, logs) {
      none.hidden = jobs.length > 0;
      const ids = new Set(jobs.map((job) => job.id));
      for (const [id, row] of known) {
        if (!ids.has(id)) {
          row.element.remove();
          known.delete(id);
        }
      }
      jobs.forEach((job, i) => {
        const row = known.get(job.id) ?? jobRow(job.id, actions);
        known.set(job.id, row);
        row.update(job, logs[job.id]);
        if (rows.children[i] !== row.element) rows.insertBefore(row.element, rows.children[i] ?? null);
      });
    },
    /** Logs that are open here, for a kernel that has forgotten. */
    open: () => [...known].filter(([, row]) => row.open()).map(([id]) => id),
  };
}

/**
 * @param {string} id
 * @param {Actions} actions
 */
function jobRow(id, actions) {
  const title = h("strong");
  const state = h("span", { class: "era-state" });
  const when = h("span", { class: "era-when" });
  const bar = h("progress", { max: 1 });
  const message = h("p", { class: "era-message" });
  const text = h("pre", { class: "era-log", tabindex: 0, role: "log", "aria-label": "Log" });
  const folder = h("small");
  const log = h("details", {}, h("summary", {}, "Log"), folder, text);
  const cancel = cancelButton(() => actions.cancel(id));
  const element = h("li", {},
    h("div", { class: "era-row" }, title, state, bar, when, cancel.element), message, log);
  log.addEventListener("toggle", () => actions.log(id, log.open));
  return {
    element,
    open: () => log.open,
    /**
     * @param {Job} job
     * @param {string|undefined} output
     */
    update(job, output) {
      say(title, job.name);
      const code = job.exitCode ? ` (exit code ${job.exitCode})` : "";
      say(state, job.state + code);
      state.dataset.state = job.state;
      const time = job.final ? "" : `, ${formatTime(job.start)} to ${formatTime(job.end)}`;
      say(when, `${formatCredits(job.price)} credits on ${job.configuration}${time}`);
      showProgress(bar, job);
      say(message, job.message);
      message.hidden = !job.message;
      say(folder, job.directory ? `In ${job.directory}` : "");
      cancel.update(job);
      if (output !== undefined) showLog(text, output || "Nothing yet.");
    },
  };
}

/**
 * @param {HTMLProgressElement} bar
 * @param {Job} job
 */
function showProgress(bar, job) {
  const done = job.state === "succeeded" ? 1 : job.progress;
  bar.hidden = job.state === "queued" || (job.final && done === null);
  // Without a value the bar shows that something goes on, but not how far.
  if (done === null) bar.removeAttribute("value");
  else bar.value = done;
  bar.setAttribute("aria-label", `Progress of ${job.name}`);
}

/**
 * @param {HTMLElement} pre
 * @param {string} text
 */
function showLog(pre, text) {
  if (pre.textContent === text) return;
  // Follow the end, unless the reader has scrolled up.
  const atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 24;
  pre.textContent = text;
  if (atEnd) pre.scrollTop = pre.scrollHeight;
}

/**
 * A button that asks before it acts.
 *
 * @param {() => Promise<{ok: boolean, text: string}>} act
 */
function cancelButton(act) {
  const first = h("button", { type: "button" }, "Cancel");
  const yes = h("button", { type: "button", class: "era-danger" }, "Yes, stop it");
  const no = h("button", { type: "button" }, "Keep it");
  const question = h("span", { class: "era-row", role: "group", hidden: true },
    "The unused time is refunded.", yes, no);
  const told = h("span", { role: "status" });
  const element = h("span", { class: "era-cancel era-row" }, first, question, told);
  const ask = (/** @type {boolean} */ asking) => {
    first.hidden = asking;
    question.hidden = !asking;
    (asking ? no : first).focus();
  };
  first.addEventListener("click", () => ask(true));
  no.addEventListener("click", () => ask(false));
  question.addEventListener("keydown", (event) => {
    if (event.key === "Escape") ask(false);
  });
  yes.addEventListener("click", async () => {
    yes.disabled = true;
    const answer = await act();
    yes.disabled = false;
    ask(false);
    say(told, answer.ok ? "" : answer.text);
  });
  return {
    element,
    /** @param {Job} job */
    update(job) {
      element.hidden = job.final;
      first.setAttribute("aria-label", `Cancel ${job.name}`);
      question.setAttribute("aria-label", `Cancel ${job.name}?`);
    },
  };
}
