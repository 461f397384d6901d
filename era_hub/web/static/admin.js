// @ts-check
/** The admins' page: lists what there is, and changes it once the effects were seen. */

import { confirmed, durationText, micro, typed, whole, zoned } from "./forms.js";
import { byId, call, element, showProblem, span, table } from "./page.js";
import * as records from "./records.js";

const { hours, money, owner, when } = records;

/** @typedef {import("./forms.js").Change} Change */
/** @typedef {(name: string) => string} Fields */

// -- changes ---------------------------------------------------------------------------

/**
 * Preview and make a change; how it ended is said in `answer`.
 *
 * @param {HTMLElement} answer
 * @param {() => Change} wanted throws what is wrong with what was typed
 * @param {() => void} done
 */
async function change(answer, wanted, done = () => {}) {
  answer.hidden = true;
  try {
    const made = await confirmed(wanted());
    if (!made) return;
    done();
    say(answer, `Done: ${made.effects.map((/** @type {any} */ each) => each.text).join("; ")}.`, true);
    await refresh();
    // The button that was pressed may have gone with its line.
    if (document.activeElement === document.body) answer.closest("section")?.querySelector("h2")?.focus();
  } catch (problem) {
    say(answer, /** @type {Error} */ (problem).message, false);
  }
}

/**
 * @param {HTMLElement} answer
 * @param {string} text
 * @param {boolean} good
 */
function say(answer, text, good) {
  answer.textContent = text;
  answer.className = `answer banner ${good ? "good" : "bad"}`;
  answer.hidden = false;
}

/**
 * A form that makes a change.
 *
 * @param {string} id
 * @param {(field: Fields) => Change} read
 * @param {(form: HTMLFormElement) => void} done
 */
function changes(id, read, done = (form) => form.reset()) {
  const form = formById(id);
  const answer = /** @type {HTMLElement} */ (form.querySelector(".answer"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = new FormData(form);
    const field = (/** @type {string} */ name) => String(fields.get(name) ?? "");
    change(answer, () => read(field), () => done(form));
  });
  const kind = form.elements.namedItem("kind");
  if (!(kind instanceof HTMLSelectElement)) return;
  const name = input(form, "name");
  // Everyone has no name; who else is meant must be said.
  const named = () => {
    name.disabled = kind.value === "everyone";
    name.required = !name.disabled;
    if (name.disabled) name.value = "";
  };
  kind.addEventListener("change", named);
  form.addEventListener("reset", () => setTimeout(named));
  named();
}

/** @param {string} id */
const formById = (id) => /** @type {HTMLFormElement} */ (byId(id));
/**
 * @param {HTMLFormElement} form
 * @param {string} name
 */
const input = (form, name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));

/**
 * A button in a list that takes the line away.
 *
 * @param {string} list
 * @param {string} label
 * @param {string} what for those who hear the label alone
 * @param {string} path
 */
function endButton(list, label, what, path) {
  const answer = /** @type {HTMLElement} */ (byId(list).parentElement?.querySelector(".answer"));
  return button(label, what, () => change(answer, () => ({ path, method: "DELETE" })));
}

/**
 * @param {string} label
 * @param {string} what
 * @param {() => void} act
 */
function button(label, what, act) {
  const made = /** @type {HTMLButtonElement} */ (element("button", label));
  made.type = "button";
  made.setAttribute("aria-label", `${label}: ${what}`);
  made.addEventListener("click", act);
  return made;
}

/**
 * @param {string} field
 * @returns {string | null}
 */
const orNull = (field) => field.trim() || null;

changes("credits", (field) => {
  const account = { kind: field("kind"), name: field("name"), memo: field("memo") };
  const amount = micro(field("amount"), "Credits");
  const lapse = orNull(field("expires_after"));
  if (field("what") === "grant") {
    return { path: "admin/account/grant", body: { ...account, amount, expires_after: lapse } };
  }
  if (lapse) throw new Error("Lapse after: only what is granted lapses");
  // Without an amount the service takes all; here that must not come of an empty field.
  if (amount === null) throw new Error("Credits: say how many");
  if (field("what") === "withdraw") return { path: "admin/account/withdraw", body: { ...account, amount } };
  if (account.memo) throw new Error("Memo: an overdraft has none");
  const { kind, name } = account;
  return { path: "admin/account/overdraft", body: { kind, name, overdraft: amount } };
});

changes("grant", (field) => ({
  path: "admin/grants",
  body: {
    kind: field("kind"),
    name: field("name"),
    amount: micro(field("amount"), "Credits each time"),
    period: orNull(field("period")),
    anchor: zoned(field("anchor")),
    cap: micro(field("cap"), "Top up to at most"),
    expires_after: orNull(field("expires_after")),
  },
}));

changes("policy", (field) => {
  const group = field("pays").trim();
  return {
    path: "admin/policies",
    body: {
      kind: field("kind"),
      name: field("name"),
      version: Number(field("version")),
      pays: group ? `group:${group}` : "own",
      rank: whole(field("rank"), "Rank"),
    },
  };
}, startAnew);

changes("quota", (field) => {
  const hours = field("gpu_hours").trim();
  if (hours && !/^\d{1,9}(\.\d*)?$/.test(hours)) throw new Error("GPU-hours: write a number");
  const only = field("configurations").split(",").map((each) => each.trim()).filter(Boolean);
  return {
    path: "admin/quotas",
    body: {
      kind: field("kind"),
      name: field("name"),
      version: Number(field("version")),
      gpus: whole(field("gpus"), "GPUs at once"),
      gpu_seconds: hours ? Math.round(Number(hours) * 3600) : null,
      period: orNull(field("period")),
      longest: orNull(field("longest")),
      horizon: orNull(field("horizon")),
      configurations: only.length ? only : null,
    },
  };
}, startAnew);

changes("pool", (field) => ({
  path: "admin/pool",
  body: {
    version: pool.version,
    price_floor: micro(field("price_floor"), "Lowest price"),
    price_ceiling: micro(field("price_ceiling"), "Highest price"),
    held_back: whole(field("held_back"), "GPUs held back") ?? 0,
  },
}), () => {
  poolTouched = false;
});

changes("window", (field) => ({
  path: "admin/maintenance",
  body: {
    start: zoned(field("start")),
    end: zoned(field("end")),
    gpus: whole(field("gpus"), "GPUs"),
    reason: field("reason"),
  },
}));

// -- lists -----------------------------------------------------------------------------

/** @param {any[]} accounts */
function showAccounts(accounts) {
  const rows = accounts.map((each) => ({
    cells: [
      owner(each),
      money(each.balance),
      money(each.held),
      each.lapsing ? money(each.lapsing) : "",
      each.overdraft ? money(each.overdraft) : "",
      String(each.open_reservations),
      button("Entries", owner(each), () => records.showEntries(each)),
    ],
  }));
  const titles = ["Account", "#Balance", "#Set aside", "#Lapses", "#Overdraft", "#Reservations", ""];
  table(byId("accounts"), titles, rows, "No account of this name.");
}

/** @param {any[]} grants */
function showGrants(grants) {
  const rows = grants.map((each) => ({
    cells: [
      owner(each),
      money(each.amount),
      durationText(each.period) || "once",
      money(each.cap),
      durationText(each.expires_after) || "never",
      when(each.next_at),
      endButton("grants", "End", owner(each), `admin/grants/${each.id}?version=${each.version}`),
    ],
  }));
  const titles = ["For", "#Credits", "Every", "#Top up to", "Lapse after", "Next", ""];
  table(byId("grants"), titles, rows, "None.");
}

/**
 * What can be done with a row that has a version.
 *
 * @param {string} list
 * @param {string} whose
 * @param {{kind: string, name: string, version: number}} row
 * @param {() => void} edit
 */
function rowButtons(list, whose, { kind, name, version }, edit) {
  const which = new URLSearchParams({ kind, name, version: String(version) });
  const both = element("span", button("Change", whose, edit), "buttons");
  both.append(endButton(list, "Remove", whose, `admin/${list}?${which}`));
  return both;
}

/** @param {any[]} quotas */
function showQuotas(quotas) {
  const rows = quotas.map((each) => ({
    cells: [
      owner(each),
      each.gpus === null ? "" : String(each.gpus),
      each.gpu_seconds === null ? "" : `${hours(each.gpu_seconds)} in ${durationText(each.period)}`,
      durationText(each.longest),
      durationText(each.horizon),
      each.configurations?.join(", ") ?? "",
      rowButtons("quotas", owner(each), each, () => fillQuota(each)),
    ],
  }));
  const titles = ["For", "#GPUs at once", "#GPU-hours", "Longest", "Ahead", "Only", ""];
  table(byId("quotas"), titles, rows, "None: the market's prices alone decide.");
}

/** @param {any[]} policies */
function showPolicies(policies) {
  const rows = policies.map((each) => {
    const whose = each.kind === "group" ? `members of ${each.name}` : owner(each);
    const buttons = rowButtons("policies", whose, each, () => fillPolicy(each));
    return { cells: [whose, records.payer(each.pays ?? "own"), String(each.rank ?? ""), buttons] };
  });
  const titles = ["Bids of", "Paid by", "#Rank", ""];
  table(byId("policies"), titles, rows, "None: each user's own account pays.");
}

/** @param {any} policy */
function fillPolicy(policy) {
  fill("policy", policy, { pays: (policy.pays ?? "").replace(/^(own|group:)/, ""), rank: String(policy.rank ?? "") });
}

/**
 * Put a row into its form, to be changed.
 *
 * @param {string} id of the form
 * @param {{kind: string, name: string, version: number}} row
 * @param {Record<string, string>} texts
 */
function fill(id, row, texts) {
  const form = formById(id);
  for (const [name, text] of Object.entries({ kind: row.kind, ...texts })) input(form, name).value = text;
  input(form, "kind").dispatchEvent(new Event("change"));
  input(form, "name").value = row.name;
  input(form, "version").value = String(row.version);
  input(form, Object.keys(texts)[0]).focus();
}

/** @param {any} quota */
function fillQuota(quota) {
  fill("quota", quota, {
    gpus: String(quota.gpus ?? ""),
    gpu_hours: quota.gpu_seconds === null ? "" : String(quota.gpu_seconds / 3600),
    period: durationText(quota.period),
    longest: durationText(quota.longest),
    horizon: durationText(quota.horizon),
    configurations: quota.configurations?.join(", ") ?? "",
  });
}

/** @param {HTMLFormElement} form of rows that have versions */
function startAnew(form) {
  form.reset();
  input(form, "version").value = "0"; // a reset leaves hidden fields as they are
}

/** @type {any} */
let pool = { version: 0 };
let poolTouched = false;

/** @param {any} settings */
function showPool(settings) {
  const bounds = [
    `A GPU-hour costs at least ${money(settings.floor_now)}`,
    settings.ceiling_now === null ? "with no upper bound" : `at most ${money(settings.ceiling_now)}`,
  ];
  const free = settings.gpus - settings.held_back;
  byId("pool-now").textContent = `${bounds.join(", ")}; ${free} of ${settings.gpus} GPUs are for sale.`;
  if (poolTouched) return; // nor the version: what is typed was thought of with the old settings
  pool = settings;
  const form = formById("pool");
  input(form, "price_floor").value = typed(settings.price_floor);
  input(form, "price_ceiling").value = typed(settings.price_ceiling);
  input(form, "held_back").value = String(settings.held_back);
}

/** @param {any[]} windows */
function showWindows(windows) {
  const rows = windows.map((each) => ({
    cells: [
      span(each),
      each.gpus === null ? "all" : String(each.gpus),
      each.reason,
      endButton("windows", "Drop", span(each), `admin/maintenance/${each.id}?version=${each.version}`),
    ],
  }));
  table(byId("windows"), ["When", "#GPUs", "Reason", ""], rows, "None planned.");
}

// -- the page --------------------------------------------------------------------------

const search = /** @type {HTMLInputElement} */ (byId("search"));
const found = () => `admin/accounts?search=${encodeURIComponent(search.value.trim())}`;
const loadHolders = records.partly("holders", () => "admin/holders?limit=100", "after", records.showHolders);
const loadAccounts = records.partly("accounts", found, "after", showAccounts);
const loadAudit = records.partly("audit", () => "admin/audit?limit=30", "before", records.showAudit);

async function refresh() {
  try {
    await Promise.all([
      loadHolders(),
      loadAccounts(),
      call("admin/grants").then(showGrants),
      call("admin/policies").then(showPolicies),
      call("admin/quotas").then(showQuotas),
      call("admin/pool").then(showPool),
      call("admin/maintenance").then(showWindows),
      call("admin/demand").then(records.showDemand),
      loadAudit(),
    ]);
    byId("problem").hidden = true;
  } catch (problem) {
    showProblem(/** @type {Error} */ (problem));
  }
}

byId("zone").textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
search.addEventListener("change", () => loadAccounts().catch(showProblem));
formById("pool").addEventListener("input", () => {
  poolTouched = true;
});
// Another row than the one that was to be changed: it is meant to be new.
for (const form of ["policy", "quota"].map(formById)) {
  for (const name of ["kind", "name"]) {
    input(form, name).addEventListener("input", () => {
      input(form, "version").value = "0";
    });
  }
}
byId("refresh").addEventListener("click", () => {
  poolTouched = false;
  refresh();
});
refresh();
