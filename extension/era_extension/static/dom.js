// @ts-check
/** Elements without markup in strings: every text becomes a text node. */

/** @typedef {string | Node | null | undefined | false} Child */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [attributes] strings; functions are listeners; true and false
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

let count = 0;

/** An id that nothing else on the page has. */
export function uniqueId() {
  count += 1;
  return `era-${Date.now().toString(36)}-${count}`;
}

/**
 * A control with its label, and a hint that is read out with it.
 *
 * @param {string} text
 * @param {HTMLElement} control
 * @param {string} [hint]
 * @param {...HTMLElement} more controls of the same row
 */
export function field(text, control, hint, ...more) {
  control.id = uniqueId();
  const row = h("div", { class: "era-row" }, control, ...more);
  const box = h("div", { class: "era-field" }, h("label", { for: control.id }, text), row);
  if (hint) {
    const small = h("small", { id: uniqueId() }, hint);
    control.setAttribute("aria-describedby", small.id);
    box.append(small);
  }
  return box;
}

/**
 * Set an element's text, if it is another: screen readers repeat what is set again.
 *
 * @param {HTMLElement} element
 * @param {string} text
 */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Set a select's choices, keeping what is chosen.
 *
 * @param {HTMLSelectElement | HTMLDataListElement} list
 * @param {{value: string, text: string}[]} choices
 */
export function setChoices(list, choices) {
  const key = JSON.stringify(choices);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const chosen = list instanceof HTMLSelectElement ? list.value : "";
  list.replaceChildren(...choices.map(({ value, text }) => h("option", { value }, text)));
  if (list instanceof HTMLSelectElement && choices.some(({ value }) => value === chosen)) {
    list.value = chosen;
  }
}
