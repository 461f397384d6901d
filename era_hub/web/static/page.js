// @ts-check
/** What the service's pages share: calls of the API, elements and tables. */

import { formatTime } from "./market.js";

/** @param {string} name */
export const meta = (name) =>
  /** @type {HTMLMetaElement} */ (document.querySelector(`meta[name="${name}"]`)).content;
/** @param {string} id */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** An answer of the service that is not what was asked for. */
export class Refusal extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {string} method
 * @param {object | null} body sent as JSON
 * @param {Record<string, string>} headers
 * @returns {Promise<any>}
 */
export async function call(path, method = "GET", body = null, headers = {}) {
  /** @type {Record<string, string>} */
  const type = body ? { "Content-Type": "application/json" } : {};
  const response = await fetch(`${meta("era-prefix")}api/v1/${path}`, {
    method,
    headers: { "X-XSRFToken": meta("era-xsrf"), ...type, ...headers },
    body: body && JSON.stringify(body),
  });
  if (response.ok) return response.json();
  // What a proxy says instead of the service is no JSON.
  const answer = await response.json().catch(() => ({}));
  throw new Refusal(response.status, answer.detail ?? response.statusText);
}

/**
 * @param {string} tag
 * @param {string | Node} content
 * @param {string} className
 */
export function element(tag, content = "", className = "") {
  const made = document.createElement(tag);
  made.append(content);
  if (className) made.className = className;
  return made;
}

/**
 * @param {HTMLElement} host
 * @param {string[]} titles those of columns with numbers begin with "#"
 * @param {{id?: string, cells: (string | Node)[]}[]} rows
 * @param {string} empty
 */
export function table(host, titles, rows, empty) {
  if (!rows.length) return host.replaceChildren(element("p", empty, "quiet"));
  const number = titles.map((title) => (title.startsWith("#") ? "number" : ""));
  const head = element("tr");
  titles.forEach((title, i) => head.append(element("th", title.replace("#", ""), number[i])));
  const body = document.createElement("tbody");
  for (const row of rows) {
    const line = element("tr");
    if (row.id) {
      line.id = row.id;
      if (location.hash === `#${row.id}`) line.className = "chosen";
    }
    row.cells.forEach((cell, i) => line.append(element("td", cell, number[i])));
    body.append(line);
  }
  const made = element("table");
  const top = document.createElement("thead");
  top.append(head);
  made.append(top, body);
  const scroll = element("div", made, "scroll");
  host.replaceChildren(scroll);
}

/** @param {string} time */
export const ms = (time) => Date.parse(time);

/** @param {{start: string, end: string}} each */
export function span(each) {
  return `${formatTime(ms(each.start))} – ${formatTime(ms(each.end))}`;
}

/** @param {Error} problem */
export function showProblem(problem) {
  byId("problem").textContent = problem.message;
  byId("problem").hidden = false;
}
