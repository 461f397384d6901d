// @ts-check
/** The form of a bid for a background job, with the price as one types. */

import { cheapestStart, formatCredits, formatForInput, formatTime } from "../../../era_hub/client/market.js";
import { field, h, say, setChoices, uniqueId } from "./dom.js";

const MICRO = 1e6;
const HOURS_AHEAD = 12;

/**
 * @typedef {object} Prices
 * @property {number} slot seconds
 * @property {number} firstSlot ms
 * @property {boolean} simulated
 * @property {{name: string, title: string, description: string, gpus: number,
 *   perHour: number|null, prices: (number|null)[]}[]} configurations
 */

/**
 * @typedef {object} Bid
 * @property {string} kind file, code or command
 * @property {string} text
 * @property {string} name
 * @property {string} configuration
 * @property {number} duration seconds
 * @property {string|null} deadline ISO 8601
 * @property {string} value credits
 * @property {string} commitment flexible, preemptible or fixed
 * @property {string} account who pays; empty where there is no choice
 */

/** @typedef {{account: string, title: string, balance: number, usual: boolean}} Payer */

/**
 * @param {{
 *   submit: (bid: Bid) => Promise<{ok: boolean, text: string}>,
 *   changed: () => void,
 * }} actions
 */
export function bidForm({ submit, changed }) {
  const files = h("datalist", { id: uniqueId() });
  const kind = h("select", {},
    h("option", { value: "file" }, "a script in this folder"),
    h("option", { value: "code" }, "Python code"),
    h("option", { value: "command" }, "a command"));
  const path = h("input", { type: "text", list: files.id, placeholder: "train.py", spellcheck: "false" });
  const code = h("textarea", { rows: 5, spellcheck: "false", hidden: true });
  const name = h("input", { type: "text", maxlength: 200, placeholder: "optional" });
  const configuration = h("select", { required: true });
  const length = h("input", { type: "number", min: 1, step: "any", value: 30, required: true });
  const unit = h("select", { "aria-label": "Unit of the duration" },
    h("option", { value: "60" }, "minutes"), h("option", { value: "3600" }, "hours"));
  const deadline = h("input", { type: "datetime-local", value: formatForInput(defaultDeadline()) });
  const value = h("input", { type: "number", min: 0, step: "any", required: true });
  const commitment = h("select", {},
    h("option", { value: "flexible" }, "may move"),
    h("option", { value: "preemptible" }, "may move and pause"),
    h("option", { value: "fixed" }, "stays as planned"));
  const payer = h("select", {});
  const payerField = field("Who pays", payer);
  payerField.hidden = true;
  const total = h("p", { class: "era-total", "aria-live": "polite" });
  const reply = h("p", { class: "era-reply", role: "status" });
  const button = h("button", { type: "submit", class: "era-primary" }, "Submit");

  const whatField = field("Script", path);
  const codeField = field("Code", code);
  codeField.hidden = true;
  const form = h("form", { class: "era-form", "aria-label": "Bid for a background job" },
    h("h4", {}, "Run in the background"), files,
    field("Run", kind), whatField, codeField, field("Name", name),
    field("Configuration", configuration),
    field("Duration", length, undefined, unit),
    field("Finish by", deadline, "The later, the cheaper. Empty: start now or not at all."),
    field("The most you will pay", value,
      "In credits. You pay the market's price, whatever you write here; so write what it is worth to you."),
    field("Its start", commitment,
      "What may move can start early if GPUs are idle. What may pause is cheaper, and must go on from checkpoints."),
    payerField, total, h("div", { class: "era-row" }, button), reply);

  /** @type {Prices|null} */
  let prices = null;
  let now = 0;

  const showKind = () => {
    const long = kind.value !== "file";
    whatField.hidden = long;
    codeField.hidden = !long;
    code.hidden = !long;
    path.required = !long;
    code.required = long;
    const label = codeField.querySelector("label");
    if (label) say(label, kind.value === "code" ? "Code" : "Command");
  };

  /** @param {Payer[]} accounts with one there is nothing to choose */
  const showPayers = (accounts) => {
    const first = payerField.hidden;
    payerField.hidden = accounts.length < 2;
    if (payerField.hidden) return;
    setChoices(payer, accounts.map(({ account, title, balance }) =>
      ({ value: account, text: `${title} (${formatCredits(balance)} credits)` })));
    const usual = accounts.find((each) => each.usual);
    if (first && usual) payer.value = usual.account;
  };

  /** The cheapest start for what the form says; null if nothing fits or is known. */
  const chosen = () => {
    const selected = prices?.configurations.find((one) => one.name === configuration.value);
    const duration = Number(length.value) * Number(unit.value);
    if (!prices || !selected || !(duration > 0)) return null;
    const { slot, firstSlot } = prices;
    const latest = deadline.value ? new Date(deadline.value).getTime()
      : now + Math.ceil(duration / slot) * slot * 1000;
    return cheapestStart({
      firstSlot, slot, prices: selected.prices, now, duration, arrival: now, deadline: latest,
    });
  };

  const estimate = () => {
    const best = chosen();
    if (!best) say(total, "Nothing in the coming 24 hours fits. Try a later end or less time.");
    else {
      const most = commitment.value === "preemptible" ? "at most " : "";
      const cost = `Total now: ${most}${formatCredits(best.price)} credits, ` +
        `from ${formatTime(best.start)} to ${formatTime(best.end)}.`;
      const low = value.value !== "" && Number(value.value) * MICRO < best.price;
      say(total, low ? `${cost} Your limit is below this; the market would decline.` : cost);
    }
    changed();
  };

  form.addEventListener("input", () => {
    showKind();
    estimate();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    reply.className = "era-reply";
    say(reply, "Asking the market…");
    const answer = await submit({
      kind: kind.value,
      text: kind.value === "file" ? path.value : code.value,
      name: name.value,
      configuration: configuration.value,
      duration: Number(length.value) * Number(unit.value),
      deadline: deadline.value ? new Date(deadline.value).toISOString() : null,
      value: value.value,
      commitment: commitment.value,
      account: payerField.hidden ? "" : payer.value,
    });
    button.disabled = false;
    reply.className = answer.ok ? "era-reply era-good" : "era-reply era-bad";
    say(reply, answer.text);
  });
  showKind();
  say(total, "Waiting for prices…");

  return {
    element: form,
    configuration: () => configuration.value,
    chosen,
    /**
     * @param {Prices} state
     * @param {number} time ms
     * @param {string[]} names
     * @param {Payer[]} accounts
     */
    update(state, time, names, accounts) {
      showPayers(accounts);
      if (!state.configurations) return;
      const first = !prices;
      prices = state;
      now = time;
      setChoices(configuration, state.configurations.map(describe));
      // Who comes to a market for GPUs wants one.
      const smallest = state.configurations.find((one) => one.gpus > 0);
      if (first && smallest) configuration.value = smallest.name;
      setChoices(files, names.map((file) => ({ value: file, text: file })));
      estimate();
    },
  };
}

/** @param {Prices["configurations"][number]} configuration */
function describe({ name, title, perHour }) {
  const price = perHour === null ? "sold out now" : `${formatCredits(perHour)} per hour now`;
  return { value: name, text: `${title || name} (${price})` };
}

function defaultDeadline() {
  const date = new Date(Date.now() + HOURS_AHEAD * 3600e3);
  return date.setMinutes(0, 0, 0);
}
