// @ts-check
/**
 * The chart of prices over time, with the band in which they are expected later.
 *
 * Shared by the spawn form, the notebook widget and the service's pages. Draws
 * with DOM calls only, so no text can become markup, and asks the network nothing.
 */

import { formatCredits, formatTime, two } from "./market.js";
import { hatching, label, line, node } from "./svg.js";

/**
 * @typedef {object} ChartOptions
 * @property {number} firstSlot start of the first slot, ms since 1970
 * @property {number} slot length of a slot in seconds
 * @property {(number|null)[]} prices micro-credits for each slot; null where sold out
 * @property {Forecast|null} [forecast] what the slots may cost when asked for later
 * @property {number} now ms since 1970
 * @property {number} hours how far the time axis reaches
 * @property {{start: number, end: number}|null} [chosen] interval to highlight, ms
 */

/**
 * @typedef {object} Forecast micro-credits for each slot; null where unknown
 * @property {(number|null)[]} expected
 * @property {(number|null)[]} low one case in ten is below
 * @property {(number|null)[]} high one case in ten is above
 */

/** @typedef {{from: number, to: number, price: number|null}} Run a stretch of one price, ms */
/** @typedef {{from: number, to: number, expected: number, low: number, high: number}} Span */

const MICRO = 1e6;
const HOUR = 3600e3;
// Pages set --era-chart-*; Bootstrap and JupyterLab bring their own background.
const LINE = "var(--era-chart-line, #f37524)";
const LATER = "var(--era-chart-later, #5b8def)";
const CHOSEN = "var(--era-chart-chosen, #2a9d5c)";
const PAPER = "var(--era-chart-paper, var(--bs-body-bg, var(--jp-layout-color1, #fff)))";
// Smaller differences between now and later, relative to the highest price, are no news.
const NOTABLE = 0.02;

/**
 * @typedef {object} Chart
 * @property {HTMLElement} host
 * @property {ChartOptions} options
 * @property {string} id unique in the page, for the hatching
 */

/** @type {WeakMap<HTMLElement, Chart>} */
const charts = new WeakMap();
let chartCount = 0;

/**
 * Draw the price per hour over time into `host`; call again to redraw.
 *
 * @param {HTMLElement} host
 * @param {ChartOptions} options
 */
export function priceChart(host, options) {
  let chart = charts.get(host);
  if (chart) {
    chart.options = options;
    draw(chart);
    return;
  }
  chart = { host, options, id: `era-chart-${Date.now().toString(36)}-${chartCount++}` };
  charts.set(host, chart);
  const known = chart;
  let width = host.clientWidth;
  new ResizeObserver(() => {
    if (host.clientWidth !== width) {
      width = host.clientWidth;
      draw(known);
    }
  }).observe(host);
  draw(chart);
}

/**
 * @typedef {object} Frame the plot's area in pixels and its scales
 * @property {number} left
 * @property {number} right
 * @property {number} top
 * @property {number} bottom
 * @property {number} from ms at the left edge
 * @property {number} to ms at the right edge
 * @property {number} highest credits per hour at the top
 * @property {(ms: number) => number} x
 * @property {(credits: number) => number} y
 */

/** @param {Chart} chart */
function draw({ host, options, id }) {
  const width = Math.max(240, host.clientWidth || 600);
  const height = width < 420 ? 180 : 220;
  const runs = priceRuns(options);
  const spans = expectedSpans(options);
  const highest = [...runs.map((run) => run.price ?? 0), ...spans.map((span) => span.high)];
  const ticks = niceTicks(Math.max(0, ...highest));
  const frame = makeFrame(options, width, height, ticks[ticks.length - 1]);
  const svg = node("svg", {
    width: "100%", height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0,
    "aria-label": describe(options, runs, spans),
    style: "display:block;overflow:visible;font:12px system-ui,sans-serif;touch-action:pan-y",
  });
  svg.append(hatching(id));
  drawAxes(svg, frame, ticks, options.now);
  drawExpected(svg, frame, spans, differs(runs, spans));
  drawPrices(svg, frame, runs, id, !spans.length);
  drawMarks(svg, frame, options);
  const spoken = document.createElement("span");
  spoken.setAttribute("aria-live", "polite");
  spoken.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)";
  addTooltip(svg, frame, runs, spans, spoken);
  host.replaceChildren(svg, legend(options, runs, spans), spoken);
}

/**
 * Stretches of equal price per hour within the time axis, in credits.
 *
 * @param {ChartOptions} options
 * @returns {Run[]}
 */
function priceRuns({ firstSlot, slot, prices, hours }) {
  const step = slot * 1000;
  const shown = Math.min(prices.length, Math.ceil((hours * HOUR) / step));
  /** @type {Run[]} */
  const runs = [];
  for (let i = 0; i < shown; i++) {
    const micro = prices[i];
    const price = micro === null ? null : (micro * 3600) / slot / MICRO;
    const last = runs[runs.length - 1];
    const to = Math.min(firstSlot + (i + 1) * step, firstSlot + hours * HOUR);
    if (last && last.price === price) last.to = to;
    else runs.push({ from: firstSlot + i * step, to, price });
  }
  return runs;
}

/**
 * What to expect later within the time axis, in credits per hour.
 *
 * @param {ChartOptions} options
 * @returns {Span[]}
 */
function expectedSpans({ firstSlot, slot, forecast, now, hours }) {
  if (!forecast) return [];
  const step = slot * 1000;
  const shown = Math.min(forecast.expected.length, Math.ceil((hours * HOUR) / step));
  /** @param {number} micro */
  const perHour = (micro) => (micro * 3600) / slot / MICRO;
  /** @type {Span[]} */
  const spans = [];
  for (let i = 0; i < shown; i++) {
    const values = [forecast.expected[i], forecast.low[i], forecast.high[i]];
    const to = Math.min(firstSlot + (i + 1) * step, firstSlot + hours * HOUR);
    // What is over can't be asked for later.
    if (values.some((one) => one == null) || to <= now) continue;
    const [expected, low, high] = values.map((one) => perHour(one ?? 0));
    const last = spans[spans.length - 1];
    const same = last && last.expected === expected && last.low === low && last.high === high;
    const from = Math.max(now, firstSlot + i * step);
    if (same && last.to === from) last.to = to;
    else spans.push({ from, to, expected, low, high });
  }
  return spans;
}

/**
 * Whether the prices to expect differ from those of now, as not with every algorithm.
 *
 * @param {Run[]} runs
 * @param {Span[]} spans
 */
function differs(runs, spans) {
  const most = Math.max(...runs.map((run) => run.price ?? 0));
  let [apart, length] = [0, 0];
  for (const { from, to, expected } of spans) {
    const now = runs.find((run) => from >= run.from && from < run.to)?.price ?? expected;
    apart += Math.abs(now - expected) * (to - from);
    length += to - from;
  }
  return apart > NOTABLE * most * length;
}

/**
 * @param {ChartOptions} options
 * @param {number} width
 * @param {number} height
 * @param {number} highest
 * @returns {Frame}
 */
function makeFrame({ firstSlot, hours }, width, height, highest) {
  const [left, right, top, bottom] = [42, width - 10, 24, height - 24];
  const [from, to] = [firstSlot, firstSlot + hours * HOUR];
  return {
    left, right, top, bottom, from, to, highest,
    x: (ms) => left + ((Math.min(Math.max(ms, from), to) - from) / (to - from)) * (right - left),
    y: (credits) => bottom - (credits / highest) * (bottom - top),
  };
}

/**
 * Round numbers from 0 to just above `highest`.
 *
 * @param {number} highest
 */
function niceTicks(highest) {
  if (!(highest > 0)) return [0, 1];
  const rough = highest / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5].find((n) => n * power >= rough * 0.999) ?? 10) * power;
  const count = Math.ceil((highest / step) * 0.999);
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}

/**
 * @param {SVGElement} svg
 * @param {Frame} frame
 * @param {number[]} ticks
 * @param {number} now
 */
function drawAxes(svg, frame, ticks, now) {
  const digits = Math.max(...ticks.map((tick) => (String(tick).split(".")[1] ?? "").length));
  for (const tick of ticks) {
    const y = frame.y(tick);
    svg.append(line(frame.left, y, frame.right, y, tick ? 0.12 : 0.4));
    svg.append(label(frame.left - 6, y + 4, tick.toFixed(Math.min(6, digits)), "end"));
  }
  svg.append(label(2, 12, "credits per hour", "start"));
  const room = (frame.right - frame.left) / ((frame.to - frame.from) / HOUR);
  const every = [1, 2, 3, 4, 6, 12, 24].find((hours) => hours * room >= 52) ?? 48;
  const date = new Date(frame.from);
  date.setMinutes(0, 0, 0);
  // Stepping the local hour keeps the labels round when the clocks change.
  for (date.setHours(date.getHours() + 1); date.getTime() <= frame.to; date.setHours(date.getHours() + 1)) {
    const midnight = date.getHours() === 0;
    if (date.getHours() % Math.min(every, 24) !== 0) continue;
    const x = frame.x(date.getTime());
    svg.append(line(x, midnight ? frame.top - 6 : frame.bottom, x, frame.bottom + 5, midnight ? 0.35 : 0.4));
    const text = midnight ? date.toLocaleDateString("en-GB", { weekday: "short" }) : `${two(date.getHours())}:00`;
    // The mark for now has its own label.
    if (now <= frame.to && Math.abs(x - frame.x(now)) < 36) continue;
    const last = x > frame.right - 16;
    svg.append(label(last ? frame.right + 8 : x, frame.bottom + 18, text, last ? "end" : "middle", midnight));
  }
}

/**
 * The band, one shape per stretch without gaps, and the middle where it is news.
 *
 * @param {SVGElement} svg
 * @param {Frame} frame
 * @param {Span[]} spans
 * @param {boolean} middle
 */
function drawExpected(svg, frame, spans, middle) {
  let [band, line] = ["", ""];
  for (let i = 0; i < spans.length; ) {
    const begin = i;
    let above = `M${frame.x(spans[i].from)},${frame.y(spans[i].high)}`;
    let below = "";
    do {
      const [x0, x1] = [frame.x(spans[i].from), frame.x(spans[i].to)];
      above += `V${frame.y(spans[i].high)}H${x1}`;
      below = `V${frame.y(spans[i].low)}H${x0}${below}`;
      line += `${i > begin ? "L" : "M"}${x0},${frame.y(spans[i].expected)}H${x1}`;
      i++;
    } while (i < spans.length && spans[i].from === spans[i - 1].to);
    band += `${above}${below}Z`;
  }
  if (!band) return;
  svg.append(node("path", { class: "era-later", d: band, style: `fill:${LATER};fill-opacity:0.3` }));
  const look = `fill:none;stroke:${LATER};stroke-width:1.5;stroke-dasharray:5 4`;
  if (middle) svg.append(node("path", { class: "era-expected", d: line, style: look }));
}

/**
 * @param {SVGElement} svg
 * @param {Frame} frame
 * @param {Run[]} runs
 * @param {string} id
 * @param {boolean} filled whether to shade what is below, where no band would be hidden
 */
function drawPrices(svg, frame, runs, id, filled) {
  let area = "";
  let edge = "";
  let joined = false;
  for (const run of runs) {
    const [x0, x1] = [frame.x(run.from), frame.x(run.to)];
    if (run.price === null) {
      const box = { x: x0, y: frame.top, width: x1 - x0, height: frame.bottom - frame.top };
      svg.append(node("rect", { ...box, fill: `url(#${id})` }));
      joined = false;
      continue;
    }
    const y = frame.y(run.price);
    area += `M${x0},${frame.bottom}V${y}H${x1}V${frame.bottom}Z`;
    edge += `${joined ? "L" : "M"}${x0},${y}H${x1}`;
    joined = true;
  }
  if (filled) svg.append(node("path", { d: area, style: `fill:${LINE};fill-opacity:0.16` }));
  svg.append(node("path", { d: edge, style: `fill:none;stroke:${LINE};stroke-width:2;stroke-linejoin:round` }));
}

/**
 * @param {SVGElement} svg
 * @param {Frame} frame
 * @param {ChartOptions} options
 */
function drawMarks(svg, frame, { now, chosen }) {
  if (chosen && chosen.start < frame.to && chosen.end > frame.from) {
    const [x0, x1] = [frame.x(chosen.start), frame.x(chosen.end)];
    const box = { x: x0, y: frame.top, width: Math.max(2, x1 - x0), height: frame.bottom - frame.top };
    svg.append(node("rect", { ...box, rx: 2, style: `fill:${CHOSEN};fill-opacity:0.22;stroke:${CHOSEN}` }));
  }
  if (now >= frame.from && now <= frame.to) {
    const x = frame.x(now);
    const mark = line(x, frame.top, x, frame.bottom, 0.75);
    mark.setAttribute("stroke-dasharray", "3 3");
    svg.append(mark, label(x, frame.bottom + 18, "now", "middle", true));
  }
}

/**
 * Time and price under the pointer, or at a place moved with the arrow keys.
 *
 * @param {SVGElement} svg
 * @param {Frame} frame
 * @param {Run[]} runs
 * @param {Span[]} spans
 * @param {HTMLElement} spoken
 */
function addTooltip(svg, frame, runs, spans, spoken) {
  const tip = node("g", { style: "display:none;pointer-events:none" });
  const cursor = line(0, frame.top, 0, frame.bottom, 0.6);
  const dot = node("circle", { r: 4, style: `fill:${LINE};stroke:${PAPER};stroke-width:2` });
  const box = node("rect", { y: 0, rx: 4, style: `fill:${PAPER};stroke:currentColor;stroke-opacity:0.4` });
  const text = label(0, 15, "", "middle", true);
  const more = label(0, 32, "", "middle");
  tip.append(cursor, dot, box, text, more);
  svg.append(tip);
  let at = frame.from;
  /** @param {number} ms */
  const show = (ms) => {
    at = Math.min(Math.max(ms, frame.from), frame.to - 1);
    const run = runs.find((one) => at >= one.from && at < one.to);
    if (!run) return;
    const x = frame.x(at);
    const price = run.price === null ? "sold out" : `${formatCredits(run.price * MICRO)} per hour`;
    text.textContent = `${formatTime(at)}: ${price}`;
    const later = spans.find((one) => at >= one.from && at < one.to);
    more.textContent = later ? `reserved later: ${range(later.low, later.high)}` : "";
    box.setAttribute("height", later ? "40" : "22");
    const width = 12 + 6.6 * Math.max(text.textContent.length, more.textContent.length);
    const middle = Math.min(Math.max(x, width / 2), frame.right + 10 - width / 2);
    for (const [name, value] of Object.entries({ x1: x, x2: x })) cursor.setAttribute(name, String(value));
    box.setAttribute("x", String(middle - width / 2));
    box.setAttribute("width", String(width));
    for (const one of [text, more]) one.setAttribute("x", String(middle));
    dot.setAttribute("cx", String(x));
    dot.setAttribute("cy", String(frame.y(run.price ?? 0)));
    tip.style.display = "";
  };
  const hide = () => (tip.style.display = "none");
  svg.addEventListener("pointermove", (event) => {
    const bounds = svg.getBoundingClientRect();
    const scale = (frame.right + 10) / bounds.width;
    const share = ((event.clientX - bounds.left) * scale - frame.left) / (frame.right - frame.left);
    show(frame.from + share * (frame.to - frame.from));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    show(at + (move * HOUR) / 2);
    spoken.textContent = [text, more].map((one) => one.textContent).filter(Boolean).join(", ");
  });
}

/**
 * The ends of a band as a text.
 *
 * @param {number} low credits
 * @param {number} high credits
 */
function range(low, high) {
  const [least, most] = [formatCredits(low * MICRO), formatCredits(high * MICRO)];
  return least === most ? `about ${least}` : `likely ${least} to ${most}`;
}

/**
 * The chart in words, for those who can't see it.
 *
 * @param {ChartOptions} options
 * @param {Run[]} runs
 * @param {Span[]} spans
 */
function describe({ now, hours, chosen }, runs, spans) {
  const ahead = runs.filter((run) => run.to > now);
  const sold = ahead.filter((run) => run.price !== null);
  const parts = [`Price per hour over the coming ${hours} hours.`];
  const current = ahead[0];
  if (current) parts.push(current.price === null ? "Sold out now." : `Now ${formatCredits(current.price * MICRO)} credits.`);
  if (sold.length) {
    const low = sold.reduce((a, b) => ((b.price ?? 0) < (a.price ?? 0) ? b : a));
    const high = sold.reduce((a, b) => ((b.price ?? 0) > (a.price ?? 0) ? b : a));
    parts.push(`Lowest ${formatCredits((low.price ?? 0) * MICRO)} at ${formatTime(Math.max(now, low.from))},`);
    parts.push(`highest ${formatCredits((high.price ?? 0) * MICRO)} at ${formatTime(Math.max(now, high.from))}.`);
  }
  const length = spans.reduce((sum, span) => sum + span.to - span.from, 0);
  if (length) {
    /** @param {(span: Span) => number} value */
    const mean = (value) => spans.reduce((sum, span) => sum + value(span) * (span.to - span.from), 0) / length;
    const expected = formatCredits(mean((span) => span.expected) * MICRO);
    const ends = [mean((span) => span.low), mean((span) => span.high)].map((one) => formatCredits(one * MICRO));
    parts.push(`Reserved later, an hour is expected to cost ${expected} on average,`);
    parts.push(`8 times in 10 between ${ends.join(" and ")}.`);
  }
  for (const gap of ahead.filter((run) => run.price === null).slice(0, 3)) {
    parts.push(`Sold out from ${formatTime(gap.from)} until ${formatTime(gap.to)}.`);
  }
  if (chosen) parts.push(`Chosen: ${formatTime(chosen.start)} to ${formatTime(chosen.end)}.`);
  return parts.join(" ");
}

/**
 * @param {ChartOptions} options
 * @param {Run[]} runs
 * @param {Span[]} spans
 */
function legend({ chosen }, runs, spans) {
  const row = document.createElement("div");
  row.style.cssText = "display:flex;flex-wrap:wrap;gap:0.25rem 1rem;font-size:0.8rem;opacity:0.85;padding-top:0.25rem";
  row.setAttribute("aria-hidden", "true");
  const stripes = "repeating-linear-gradient(45deg,currentColor 0 1px,transparent 1px 4px)";
  /** @type {[string, string][]} */
  const entries = [[spans.length ? "price if you reserve now" : "price", `background:${LINE}`]];
  if (spans.length) {
    const band = `background:color-mix(in srgb, ${LATER} 45%, transparent)`;
    entries.push(["likely price if you reserve later (8 times in 10)", band]);
    const dashes = `repeating-linear-gradient(90deg,${LATER} 0 3px,transparent 3px 5px)`;
    const line = `background:${dashes} center/100% 2px no-repeat`;
    if (differs(runs, spans)) entries.push(["expected price if you reserve later", line]);
  }
  if (chosen) entries.push(["your time", `background:${CHOSEN}`]);
  if (runs.some((run) => run.price === null)) entries.push(["sold out", `background:${stripes};opacity:0.6`]);
  for (const [name, look] of entries) {
    const item = document.createElement("span");
    const swatch = document.createElement("span");
    swatch.style.cssText = `display:inline-block;width:0.8em;height:0.8em;border-radius:2px;margin-right:0.4em;${look}`;
    item.append(swatch, name);
    row.append(item);
  }
  return row;
}
