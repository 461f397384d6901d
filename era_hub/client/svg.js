// @ts-check
/** The elements that charts are made of. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * A pattern for areas without a price.
 *
 * @param {string} id unique in the page
 */
export function hatching(id) {
  const defs = node("defs", {});
  const size = { id, width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
  const pattern = node("pattern", size);
  pattern.append(node("rect", { width: 7, height: 7, fill: "currentColor", "fill-opacity": 0.05 }));
  pattern.append(node("rect", { width: 1.5, height: 7, fill: "currentColor", "fill-opacity": 0.22 }));
  defs.append(pattern);
  return defs;
}

/**
 * An element with attributes.
 *
 * @param {string} name
 * @param {Record<string, string|number>} attributes
 * @returns {SVGElement}
 */
export function node(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    // A page's policy may forbid the attribute `style`, but not this.
    if (key === "style") element.style.cssText = String(value);
    else element.setAttribute(key, String(value));
  }
  return element;
}

/**
 * A thin line in the colour of the text.
 *
 * @param {number} x1
 * @param {number} y1
 * @param {number} x2
 * @param {number} y2
 * @param {number} opacity
 */
export function line(x1, y1, x2, y2, opacity) {
  return node("line", { x1, y1, x2, y2, stroke: "currentColor", "stroke-opacity": opacity });
}

/**
 * A text in the colour of those around.
 *
 * @param {number} x
 * @param {number} y
 * @param {string} text
 * @param {"start"|"middle"|"end"} anchor
 * @param {boolean} [strong]
 */
export function label(x, y, text, anchor, strong) {
  const look = strong ? "font-weight:600" : "fill-opacity:0.75";
  const element = node("text", { x, y, "text-anchor": anchor, style: `fill:currentColor;${look}` });
  element.textContent = text;
  return element;
}
