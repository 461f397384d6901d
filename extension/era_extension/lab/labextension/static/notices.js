// @ts-check
/** The plugin: shows the market's warnings, and the time left in the status bar. */

/** @typedef {{ id: string, level: "info" | "warning", text: string }} Notice */
/**
 * @typedef {object} Answer what the server extension says
 * @property {boolean} enabled
 * @property {Notice[]} notices
 * @property {string | null} end
 * @property {string} now
 * @property {string} error
 */
/** @typedef {Record<string, any>} Jupyter JupyterLab's modules by their short names */

const INTERVAL = 30_000;
const TICK = 5_000;
const SHORT = 15 * 60_000; // from here on minutes are shown
const SHOWN = "era-extension:shown";

/**
 * What the status bar says.
 *
 * @param {number} end milliseconds since the epoch, as is `now`
 * @param {number} now
 * @returns {{ text: string, title: string, warn: boolean }}
 */
export function timeLeft(end, now) {
  const left = end - now;
  const at = new Date(end);
  const sameDay = at.toDateString() === new Date(now).toDateString();
  const time = at.toLocaleTimeString([], {
    ...(sameDay ? {} : { weekday: "short" }),
    hour: "2-digit",
    minute: "2-digit",
  });
  const until = `GPUs until ${time}`;
  const full = at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const title = `The reservation ends at ${full}, and the server stops then.`;
  if (left <= 0) return { text: "GPU time is over", title, warn: true };
  if (left > SHORT) return { text: until, title, warn: false };
  return { text: `${Math.max(1, Math.round(left / 60_000))} min left`, title, warn: true };
}

/**
 * Shows each notice once in a tab, across reloads, and takes it back when it no longer
 * holds: after 15 minutes comes 5, and an extension makes both untrue.
 *
 * @param {any} notification JupyterLab's `Notification`
 */
function makeNotifier(notification) {
  /** @type {Set<string>} */
  const shown = new Set(recall());
  /** @type {Map<string, string>} JupyterLab's ids by ours */
  const open = new Map();

  /** @param {Answer} answer */
  return ({ notices, error }) => {
    for (const id of shown) {
      // An answer with an error may lack notices that still hold.
      if (error || notices.some((notice) => notice.id === id)) continue;
      shown.delete(id);
      if (open.has(id)) notification.dismiss(open.get(id));
      open.delete(id);
    }
    for (const { id, level, text } of notices) {
      if (shown.has(id)) continue;
      shown.add(id);
      const emit = level === "warning" ? notification.warning : notification.info;
      open.set(id, emit(text, { autoClose: false }));
    }
    remember([...shown]);
  };
}

/** @returns {string[]} */
function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(SHOWN) ?? "[]");
  } catch {
    return []; // Storage may be forbidden: then a reload repeats the warning.
  }
}

/** @param {string[]} ids */
function remember(ids) {
  try {
    sessionStorage.setItem(SHOWN, JSON.stringify(ids));
  } catch {
    // As above.
  }
}

/**
 * @param {any} statusBar JupyterLab's status bar
 * @param {any} Widget
 * @returns {(answer: Answer) => void}
 */
function addStatusItem(statusBar, Widget) {
  const item = new Widget();
  item.addClass("era-time-left");
  /** @type {number | null} */
  let end = null;
  let ahead = 0; // of the browser's clock
  let error = "";

  function paint() {
    item.setHidden(end === null);
    if (end === null) return;
    const { text, title, warn } = timeLeft(end, Date.now() + ahead);
    item.node.textContent = text;
    item.node.title = error ? `${title}\nThis may be out of date: ${error}` : title;
    item.node.classList.toggle("era-warn", warn);
  }

  // Priority 1: a narrow window must not hide it.
  const options = { item, align: "right", rank: 1000, priority: 1, isActive: () => end !== null };
  statusBar.registerStatusItem("era-extension:time-left", options);
  setInterval(paint, TICK);
  return (answer) => {
    error = answer.error;
    // While the market can't be asked, the last end it gave still holds.
    if (answer.end || !error) end = answer.end ? Date.parse(answer.end) : null;
    ahead = Date.parse(answer.now) - Date.now();
    paint();
  };
}

/**
 * Ask now and every half minute; not while nobody can see the page, but at once when it
 * comes into view.
 *
 * @param {() => Promise<boolean>} ask whether to go on
 */
function keepAsking(ask) {
  let timer = 0;
  let busy = false;

  async function round() {
    if (busy || document.hidden) return;
    busy = true;
    clearTimeout(timer);
    const goOn = await ask().catch(() => true); // The network fails now and then.
    busy = false;
    if (goOn) timer = window.setTimeout(round, INTERVAL);
    else document.removeEventListener("visibilitychange", round);
  }

  document.addEventListener("visibilitychange", round);
  void round();
}

/**
 * @param {Jupyter} jupyter
 * @returns {object[]} plugins for JupyterLab
 */
export function plugins({ apputils, coreutils, services, statusbar, widgets }) {
  /**
   * @param {any} app
   * @param {any} statusBar null where there is none, as in Notebook
   */
  function activate(app, statusBar) {
    const settings = app.serviceManager.serverSettings;
    const url = coreutils.URLExt.join(settings.baseUrl, "era/notices");
    const notify = makeNotifier(apputils.Notification);
    const showTime = statusBar && widgets ? addStatusItem(statusBar, widgets.Widget) : () => {};

    let answered = false;

    keepAsking(async () => {
      const response = await services.ServerConnection.makeRequest(url, {}, settings);
      // Without the server extension asking would only fill the server's log.
      if (response.status === 404) return answered;
      if (!response.ok) return true;
      /** @type {Answer} */
      const answer = await response.json();
      answered = true;
      notify(answer);
      showTime(answer);
      return answer.enabled;
    });
  }

  return [
    {
      id: "era-extension:notices",
      description: "Warns before the reservation of this notebook ends.",
      autoStart: true,
      optional: statusbar ? [statusbar.IStatusBar] : [],
      activate,
    },
  ];
}
