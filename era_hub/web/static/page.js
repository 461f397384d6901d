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
  const names = titles.map((title) => title.replace("#", ""));
  const head = part("tr", "row");
  names.forEach((name, i) => head.append(part("th", "columnheader", name, number[i])));
  const body = part("tbody", "rowgroup");
  for (const row of rows) {
    const line = part("tr", "row");
    if (row.id) {
      line.id = row.id;
      if (location.hash === `#${row.id}`) line.className = "chosen";
    }
    row.cells.forEach((content, i) => {
      const cell = part("td", "cell", content, number[i]);
      // On a phone each cell stands below the other, and says what it is.
      cell.dataset.title = names[i];
      line.append(cell);
    });
    body.append(line);
  }
  const made = part("table", "table", part("thead", "rowgroup", head));
  made.append(body);
  host.replaceChildren(element("div", made, "scroll"));
}

/**
 * A part of a table with its role, which browsers forget where cells are laid out otherwise.
 *
 * @param {string} tag
 * @param {string} role
 * @param {string | Node} content
 * @param {string} className
 */
function part(tag, role, content = "", className = "") {
  const made = element(tag, content, className);
  made.setAttribute("role", role);
  return made;
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
